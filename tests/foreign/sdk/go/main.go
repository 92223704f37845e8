// Asks azidentity and Google's oauth2 for tokens. One case a line on stdin, one JSON object a line on stdout; see ../README.md.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"golang.org/x/oauth2/google"
)

func main() {
	lines, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		start := time.Now()
		answer, err := ask(words[0], words[1], words[2:])
		if err != nil {
			answer = map[string]any{"error": fmt.Sprintf("%T", err), "message": err.Error()}
		}
		answer["seconds"] = time.Since(start).Seconds()
		if err := out.Encode(answer); err != nil {
			panic(err)
		}
	}
}

func ask(name, scope string, identity []string) (map[string]any, error) {
	if name == "google" {
		account := ""
		if len(identity) > 0 {
			account = identity[1]
		}
		token, err := google.ComputeTokenSource(account, scope).Token()
		if err != nil {
			return nil, err
		}
		return shown(token.AccessToken, token.Expiry), nil
	}
	credential, err := credential(name, identity)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	if name == "secret" {
		client, err := azsecrets.NewClient(scope, credential, nil)
		if err != nil {
			return nil, err
		}
		secret, err := client.GetSecret(ctx, "greeting", "", nil)
		if err != nil {
			return nil, err
		}
		return map[string]any{"secret": *secret.Value}, nil
	}
	token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
	if err != nil {
		return nil, err
	}
	return shown(token.Token, token.ExpiresOn), nil
}

func shown(token string, expires time.Time) map[string]any {
	return map[string]any{"sha256": fmt.Sprintf("%x", sha256.Sum256([]byte(token))), "expires": expires.Unix()}
}

func credential(name string, identity []string) (azcore.TokenCredential, error) {
	if name == "default" {
		// Its one selector is this variable.
		os.Unsetenv("AZURE_CLIENT_ID")
		if len(identity) > 0 {
			os.Setenv("AZURE_CLIENT_ID", identity[1])
		}
		return azidentity.NewDefaultAzureCredential(nil)
	}
	options := &azidentity.ManagedIdentityCredentialOptions{}
	if len(identity) > 0 {
		switch value := identity[1]; identity[0] {
		case "client_id":
			options.ID = azidentity.ClientID(value)
		case "object_id":
			options.ID = azidentity.ObjectID(value)
		case "resource_id":
			options.ID = azidentity.ResourceID(value)
		}
	}
	return azidentity.NewManagedIdentityCredential(options)
}
