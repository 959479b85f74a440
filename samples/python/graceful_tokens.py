"""The operator's tokens (docs/protocol.md, "Tokens"), by PyJWT: pip install "PyJWT[crypto]". Copy it beside graceful_drain.py."""

import json
import time

import jwt

LEEWAY = 60  # seconds after `exp`: the time that a request is under way


class Keys:
    """The public halves of GRACEFUL_DRAIN_KEYS. Without a usable one every token is refused, since somebody meant the pod to verify."""

    def __init__(self, text):
        try:
            keys = json.loads(text)["keys"]
        except (ValueError, KeyError, TypeError):
            keys = []
        usable = [key for key in keys if isinstance(key, dict) and (key.get("kty"), key.get("crv")) == ("OKP", "Ed25519")]
        self.keys = {key["kid"]: jwt.PyJWK(key, algorithm="EdDSA").key for key in usable if "kid" in key}

    def wrong(self, token, expected):
        """The part of the token that is at fault, or None. `expected` has the claims but `exp`."""
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            return "token"
        if header.get("alg") != "EdDSA" or "crit" in header:
            return "alg"
        if header.get("kid") not in self.keys:
            return "kid"
        try:
            # The claims are compared here, for equality; PyJWT checks the signature alone.
            options = {"verify_exp": False, "verify_aud": False, "verify_iat": False, "verify_nbf": False}
            claims = jwt.decode(token, self.keys[header["kid"]], algorithms=["EdDSA"], options=options)
        except jwt.InvalidTokenError:
            return "signature"
        if not expected["sub"]:
            return "sub"  # a pod that does not know its uid is nobody that a token could be for
        for name, value in expected.items():
            if type(claims.get(name)) is not type(value) or claims[name] != value:
                return name
        expires = claims.get("exp")
        return None if type(expires) is int and time.time() < expires + LEEWAY else "exp"
