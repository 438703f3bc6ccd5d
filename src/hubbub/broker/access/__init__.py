"""Access control: who may do what, from any credential the service knows.

`rights` says what a grant is, `resource` what a token's URI names, `sas` and `swt` read one scheme each,
`gate` joins them behind one call with a memory. `explain`, which is for a command line and therefore not
imported here, tells a person why a token does not work.
Bearer tokens need keys from outside, so their verifier is a door's; the gate only knows its shape.
"""

from .gate import Bearer, Gate, cbs_credential, verify
from .resource import Authority, host_name, scope_path, split_resource
from .rights import (
    ALL_RIGHTS,
    NEVER,
    NO_RIGHTS,
    OPEN,
    Action,
    Grant,
    KeyRing,
    Right,
    SharedKey,
    Unauthorized,
    missing_right,
    no_transport_security,
    rights_of,
)
from .sas import sas_token
from .swt import acs_issuer, signing_key, swt_token

__all__ = [
    "ALL_RIGHTS",
    "NEVER",
    "NO_RIGHTS",
    "OPEN",
    "Action",
    "Authority",
    "Bearer",
    "Gate",
    "Grant",
    "KeyRing",
    "Right",
    "SharedKey",
    "Unauthorized",
    "acs_issuer",
    "cbs_credential",
    "host_name",
    "missing_right",
    "no_transport_security",
    "rights_of",
    "sas_token",
    "scope_path",
    "signing_key",
    "split_resource",
    "swt_token",
    "verify",
]
