"""Stock SDKs get the right identity's token through every door that they know. Nothing but variables leads them there."""

import pytest

from doors import VAULT
from probes import ask

SCOPE, OTHER_SCOPE = f"{VAULT}/.default", "https://orders.example/.default"
ALL = ["client_id", "object_id", "resource_id"]
CLIENT, NONE = ["client_id"], []

# What each credential can be told to select by, where the door is not one of the exceptions below.
SELECTORS = {
    ("python", "managed"): ALL,
    ("python", "managed-aio"): ALL,
    ("python", "msal"): ALL,
    ("python", "default"): CLIENT,
    ("python", "default-aio"): CLIENT,
    ("node", "managed"): ALL,
    ("node", "default"): ["client_id", "resource_id"],
    ("go", "managed"): ALL,
    ("go", "default"): CLIENT,
    ("java", "managed"): ALL,
    ("java", "default"): ["client_id", "resource_id"],
    ("rust", "managed"): ALL,
}
# Doors at which an SDK refuses to select, by itself.
FEWER = {
    ("rust", "app-service"): ["client_id", "object_id"],
    ("node", "azure-ml"): CLIENT,
    ("go", "azure-ml"): CLIENT,
}
SYSTEM_ONLY = {"service-fabric", "cloud-shell"}
# Doors that an SDK does not know.
UNKNOWN = {
    ("java", "azure-ml"): "takes it for Cloud Shell and never sends the secret",
    **{("rust", flavour): "refuses this source" for flavour in ("arc", "service-fabric", "azure-ml", "cloud-shell")},
}
UNKNOWN_TO_MSAL = {"cloud-shell"}
FLAVOURS = ["app-service", "imds", "arc", "service-fabric", "azure-ml", "cloud-shell"]
PAIRS = [(sdk, f) for f in FLAVOURS for sdk in ("python", "node", "go", "java", "rust") if (sdk, f) not in UNKNOWN]


def variables(doors, sdk, flavour):
    found = doors.environment(flavour)
    if flavour == "imds" and sdk in ("go", "rust"):
        # They know IMDS at its link-local address alone; a proxy's name is what leads them elsewhere.
        return {**found, "HTTP_PROXY": found["AZURE_POD_IDENTITY_AUTHORITY_HOST"]}
    return found


def cases(sdk, flavour):
    """(credential, scope, selector or None). SDKs share a cache in a process: default credentials ask for something else."""
    for (of, credential), selectors in SELECTORS.items():
        if of != sdk or (credential == "msal" and flavour in UNKNOWN_TO_MSAL):
            continue
        scope = OTHER_SCOPE if credential.startswith("default") else SCOPE
        selectors = NONE if flavour in SYSTEM_ONLY else FEWER.get((sdk, flavour), selectors)
        yield from [(credential, scope, selector) for selector in [None, *selectors]]


@pytest.mark.parametrize("sdk,flavour", PAIRS)
def test_every_selector_leads_to_its_identity(doors, sdk, flavour):
    asked, lines = list(cases(sdk, flavour)), []
    for credential, scope, selector in asked:
        lines.append([credential, scope, *([selector, doors.selector(selector, "billing")] if selector else [])])
    answers = ask(sdk, variables(doors, sdk, flavour), lines)
    expected = {(i, s): doors.sha256(i, scope=s) for i in ("demo-system", "billing") for s in (SCOPE, OTHER_SCOPE)}
    for (credential, scope, selector), answer in zip(asked, answers):
        identity = "billing" if selector else "demo-system"
        assert answer.get("sha256") == expected[identity, scope], (credential, scope, selector, answer)


@pytest.mark.parametrize("sdk", ["python", "node", "go"])
def test_googles_default_credentials_find_the_metadata_server(doors, sdk):
    [answer] = ask(sdk, doors.environment("gce"), [["google", SCOPE]])
    assert answer.get("sha256") == doors.sha256("demo-system"), answer


@pytest.mark.parametrize("sdk", ["node", "go"])
def test_googles_clients_for_another_account_get_that_identitys_token(doors, sdk):
    """Not Python's: it asks for the default account, whatever it was given."""
    [answer] = ask(sdk, doors.environment("gce"), [["google", SCOPE, "account", "billing"]])
    assert answer.get("sha256") == doors.sha256("billing"), answer


@pytest.mark.parametrize("sdk", ["python", "node", "go", "java", "rust"])
def test_a_proxy_gets_nothing_that_is_for_this_machine(doors, sdk):
    # Nobody is at that port.
    proxies = {name: "http://127.0.0.1:9" for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")}
    [answer] = ask(sdk, {**proxies, **doors.environment("app-service")}, [["managed", SCOPE]])
    assert answer.get("sha256") == doors.sha256("demo-system"), answer


def test_msal_has_a_token_replaced_that_a_resource_refused(doors):
    [answer] = ask("python", doors.environment("service-fabric"), [["msal-challenged", SCOPE]])
    assert answer.get("sha256") and answer["refused"].get("sha256"), answer
    assert answer["sha256"] != answer["refused"]["sha256"]
