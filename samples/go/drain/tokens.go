package drain

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"time"
)

// leeway after `exp`: the time that a request is under way.
const leeway = 60 * time.Second

// keys are the public halves of GRACEFUL_DRAIN_KEYS. Without a usable one every token is refused, since somebody meant the pod to verify.
type keys map[string]ed25519.PublicKey

type claims struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
	Boot    string `json:"boot"`
	Action  string `json:"action"`
	Epoch   uint64 `json:"epoch"`
	Expires *int64 `json:"exp"`
}

func keysFromEnvironment() *keys {
	text := os.Getenv("GRACEFUL_DRAIN_KEYS")
	if strings.TrimSpace(text) == "" {
		return nil
	}
	var set struct {
		Keys []struct{ Kty, Crv, Kid, X string }
	}
	_ = json.Unmarshal([]byte(text), &set)
	found := keys{}
	for _, key := range set.Keys {
		public, err := base64.RawURLEncoding.DecodeString(key.X)
		if key.Kty == "OKP" && key.Crv == "Ed25519" && err == nil && len(public) == ed25519.PublicKeySize {
			found[key.Kid] = public
		}
	}
	return &found
}

// wrong names the part of the token that is at fault; empty: it is good.
func (k keys) wrong(token string, expected claims, now time.Time) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "token"
	}
	var header struct {
		Alg, Kid string
		Crit     json.RawMessage
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !read(parts[0], &header) {
		return "token"
	}
	key, known := k[header.Kid]
	var said claims
	switch {
	case header.Alg != "EdDSA" || header.Crit != nil:
		return "alg"
	case !known:
		return "kid"
	case !ed25519.Verify(key, []byte(parts[0]+"."+parts[1]), signature):
		return "signature"
	case !read(parts[1], &said):
		return "token"
	case said.Issuer != expected.Issuer:
		return "iss"
	case said.Subject != expected.Subject || said.Subject == "": // a pod that does not know its uid is nobody
		return "sub"
	case said.Boot != expected.Boot:
		return "boot"
	case said.Action != expected.Action:
		return "action"
	case said.Epoch != expected.Epoch:
		return "epoch"
	case said.Expires == nil || now.Unix() >= *said.Expires+int64(leeway.Seconds()):
		return "exp"
	}
	return ""
}

func read(part string, into any) bool {
	text, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(text, into) == nil
}
