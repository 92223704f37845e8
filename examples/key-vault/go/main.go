// Reads a secret from a key vault: key-vault VAULT_URL
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: key-vault VAULT_URL")
	}
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		log.Fatal(err)
	}
	client, err := azsecrets.NewClient(os.Args[1], credential, &azsecrets.ClientOptions{
		// For a vault at https://localhost:PORT. One that has a name below its resource, as all of Azure's have, does without this line.
		DisableChallengeResourceVerification: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	secret, err := client.GetSecret(context.Background(), "greeting", "", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*secret.Value)
}
