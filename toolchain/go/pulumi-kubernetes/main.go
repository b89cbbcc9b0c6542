// Pulumi's own Kubernetes provider, as its release does it: its module carries the two JSON files, and the toolchain puts
// them beside this file for a build (toolchain/golang.py). No flag of the provider is changed here.
package main

import (
	_ "embed"

	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/provider"
	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/version"
)

//go:embed schema.json
var schema []byte

//go:embed terraform-mapping.json
var mapping []byte

func main() {
	provider.Serve("kubernetes", version.Version, schema, mapping)
}
