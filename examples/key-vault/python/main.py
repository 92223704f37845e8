"""Reads a secret from a key vault: python main.py VAULT_URL"""

import sys

from azure.identity import DefaultAzureCredential
from azure.keyvault.secrets import SecretClient


def main():
    client = SecretClient(
        vault_url=sys.argv[1],
        credential=DefaultAzureCredential(),
        # For a vault at https://localhost:PORT. One that has a name below its resource, as all of Azure's have, does without this line.
        verify_challenge_resource=False,
    )
    print(client.get_secret("greeting").value)


if __name__ == "__main__":
    main()
