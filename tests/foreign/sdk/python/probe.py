"""Asks azure-identity, MSAL and google-auth for tokens. One case a line on stdin, one JSON object a line on stdout; see ../README.md."""

import asyncio
import datetime
import hashlib
import json
import sys
import time

import azure.identity
import azure.identity.aio
import google.auth
import google.auth.transport.requests
import msal
import requests
from azure.keyvault.secrets import SecretClient


def managed(module, selector=None, value=None):
    if selector in (None, "client_id"):
        return module.ManagedIdentityCredential(client_id=value)
    return module.ManagedIdentityCredential(identity_config={selector: value})


def by_default(module, selector=None, value=None):
    return module.DefaultAzureCredential(**{f"managed_identity_{selector}": value} if selector else {})


def shown(token, expires):
    return {"sha256": hashlib.sha256(token.encode()).hexdigest(), "expires": int(expires)}


def sync(make):
    def case(scope, *identity):
        with make(azure.identity, *identity) as credential:
            token = credential.get_token(scope)
        return shown(token.token, token.expires_on)

    return case


def asynchronous(make):
    async def ask(scope, *identity):
        async with make(azure.identity.aio, *identity) as credential:
            return await credential.get_token(scope)

    def case(scope, *identity):
        token = asyncio.run(ask(scope, *identity))
        return shown(token.token, token.expires_on)

    return case


def managed_by_msal(selector=None, value=None, **more):
    identity = msal.UserAssignedManagedIdentity(**{selector: value}) if selector else msal.SystemAssignedManagedIdentity()
    return msal.ManagedIdentityClient(identity, http_client=requests.Session(), **more)


def acquired(answer):
    if "access_token" not in answer:
        return {"error": answer["error"], "message": answer.get("error_description", "")}
    return shown(answer["access_token"], time.time() + answer["expires_in"])


def msal_alone(scope, *identity):
    return acquired(managed_by_msal(*identity).acquire_token_for_client(resource=scope.removesuffix("/.default")))


def msal_challenged(scope):
    """What a program does whose token a resource refuses with a claims challenge."""
    client, resource = managed_by_msal(client_capabilities=["CP1"]), scope.removesuffix("/.default")
    refused = acquired(client.acquire_token_for_client(resource=resource))
    challenge = json.dumps({"access_token": {"nbf": {"essential": True, "value": "1"}}})
    return {**acquired(client.acquire_token_for_client(resource=resource, claims_challenge=challenge)), "refused": refused}


def google_default(scope):
    credentials, _ = google.auth.default(scopes=[scope])
    credentials.refresh(google.auth.transport.requests.Request())
    return shown(credentials.token, credentials.expiry.replace(tzinfo=datetime.timezone.utc).timestamp())


def secret(url, *identity):
    with SecretClient(url, managed(azure.identity, *identity)) as client:
        return {"secret": client.get_secret("greeting").value}


CASES = {
    "managed": sync(managed),
    "default": sync(by_default),
    "managed-aio": asynchronous(managed),
    "default-aio": asynchronous(by_default),
    "msal": msal_alone,
    "msal-challenged": msal_challenged,
    "google": google_default,
    "secret": secret,
}

for line in sys.stdin:
    name, *rest = line.split()
    start = time.monotonic()
    try:
        answer = CASES[name](*rest)
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    answer["seconds"] = time.monotonic() - start
    print(json.dumps(answer), flush=True)
