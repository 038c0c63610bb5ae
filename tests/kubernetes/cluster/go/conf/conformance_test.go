// Package conf is the official Gateway API conformance suite as a test binary, unmodified; every option is one of its flags.
package conf

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
