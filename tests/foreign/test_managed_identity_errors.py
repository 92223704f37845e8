"""What users of the SDKs see when the broker refuses: the door's own words, at once."""

import uuid

import pytest

from doors import VAULT
from probes import ask
from test_managed_identity_sdks import variables

SCOPE = f"{VAULT}/.default"
# A refusal that an SDK takes for a passing trouble is asked again for longer than this.
SOON_S = 5
TRIES = 3
# It keeps the body of a 400 to itself.
RUST = "The requested identity has not been assigned to this resource"

CREDENTIALS = {
    "python": ["managed", "managed-aio", "msal", "default", "default-aio"],
    "node": ["managed", "default"],
    "go": ["managed", "default"],
    "java": ["managed", "default"],
    "rust": ["managed"],
}


def refused(sdk, environment, selector=(), scope=SCOPE, credentials=None):
    """The errors of each credential: those of the quickest try, as the machine may be busy with something else."""
    credentials = credentials or CREDENTIALS[sdk]
    lines = [[credential, scope, *selector] for credential in credentials]
    for tries in range(1, TRIES + 1):
        # The first time, a program is busy loading its classes.
        _, *answers = ask(sdk, environment, [lines[0], *lines])
        slow = [answer for answer in answers if answer["seconds"] >= SOON_S]
        if not slow:
            break
        assert tries < TRIES, slow
    return dict(zip(credentials, answers))


@pytest.mark.parametrize("sdk", CREDENTIALS)
def test_an_unknown_identity_is_named_so_at_once_through_app_service(doors, sdk):
    nobody = str(uuid.uuid4())
    door = doors.door("app-service")
    # Each refusal has a number of its own behind that.
    words = RUST if sdk == "rust" else door.error(door.ask(client_id=nobody)).split("--correlation")[0]
    for credential, answer in refused(sdk, doors.environment("app-service"), ["client_id", nobody]).items():
        assert words in answer["message"], (credential, answer)


@pytest.mark.parametrize("sdk", CREDENTIALS)
def test_an_unknown_identity_is_named_so_at_once_through_imds(doors, sdk):
    nobody = str(uuid.uuid4())
    for credential, answer in refused(sdk, variables(doors, sdk, "imds"), ["client_id", nobody]).items():
        words = {"rust": RUST, "java": "Managed Identity"}.get(sdk, "Identity not found")
        if (sdk, credential) in {("python", "managed-aio"), ("python", "default-aio")}:
            words = "The requested identity has not been assigned to this resource"
        assert words in answer["message"], (credential, answer)


@pytest.mark.parametrize("sdk", CREDENTIALS)
def test_a_wrong_secret_is_refused_at_once_and_says_so(doors, sdk):
    door = doors.door("app-service")
    words = door.error(door.ask(headers={"X-IDENTITY-HEADER": "wrong"}))
    environment = {**doors.environment("app-service"), "IDENTITY_HEADER": "wrong"}
    for credential, answer in refused(sdk, environment).items():
        assert words in answer["message"], (credential, answer)


@pytest.mark.parametrize("flavour", ["arc", "service-fabric", "azure-ml", "cloud-shell"])
@pytest.mark.parametrize("sdk", ["python", "node", "go"])
def test_what_another_door_refuses_is_an_error_at_once(doors, sdk, flavour):
    # Something that the demo workload may not ask for: not every SDK selects an identity at these doors.
    foreign = "https://unassigned.example/.default"
    for credential, answer in refused(sdk, doors.environment(flavour), scope=foreign, credentials=["managed"]).items():
        assert "error" in answer, (credential, answer)
