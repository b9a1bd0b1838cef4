//! The configuration files as an operator would write them.

use trave_proto::digest::Digest;

use super::Ceremony;

impl Ceremony {
    pub(super) fn registry_toml(&self, cosigner_tls: &[u8]) -> String {
        let Self { instance, registry_key, public_listen, admin_listen, .. } = self;
        let Self { cosigner_listen, trust_services_listen, validity_minutes, .. } = self;
        let cosigner = Digest::of(cosigner_tls);
        format!(
            r#"# The central registry of the instance {instance}. Paths begin in the directory of this file.

# The registry's log and what is derived from it. Back it up; the log is the registry.
data = "data"
# Whose signatures make a configuration. Every operator has the same file.
anchor = "anchor"
# The first configuration, as the ceremony made it.
genesis = "genesis.configuration"
# Name of this registry's key in the anchor.
key_name = "{registry_key}"

# Door for security servers: configurations and enrolment, HTTPS.
public_listen = "{public_listen}"
# Name under which they reach it, if it is another: goes into enrolment tokens.
# public_address = "registry.example:7443"
# Door for administrators, mutual TLS.
admin_listen = "{admin_listen}"

# Its holder can sign configurations in one state's name, which alone is not enough.
[configuration_key]
key = "configuration.key.pem"
passphrase_file = "passphrase"

# Its holder could present another history of this registry.
[log_key]
key = "log.key.pem"
passphrase_file = "passphrase"

# Its holder could ask for enrolments, which two administrators would still have to sign.
[token_key]
key = "token.key.pem"
passphrase_file = "passphrase"

# Its holder could pass for this registry, whose answers prove themselves.
[tls]
certificate = "tls.pem"
key = "tls.key.pem"
passphrase_file = "passphrase"

# The holder of the other configuration key, in the other state.
[[cosigner]]
address = "{cosigner_listen}"
# SHA-256 of the SubjectPublicKeyInfo of its TLS key.
key = "{cosigner}"

[publication]
# So long works a security server that reaches neither this registry nor a peer that does.
validity_minutes = {validity_minutes}

# Certification authority, OCSP, revocation list and timestamps, cleartext HTTP: what they answer is signed.
[trust_services]
listen = "{trust_services_listen}"
directory = "trust-services"
passphrase_file = "trust-services/passphrase"
"#
        )
    }

    pub(super) fn cosigner_toml(&self, genesis: &Digest, registry_tls: &[u8]) -> String {
        let Self { instance, cosigner_key, cosigner_listen, .. } = self;
        let registry = Digest::of(registry_tls);
        format!(
            r#"# The cosigner of the instance {instance}: runs in the other state, on a machine of its own. It signs only what two
# administrators signed. Paths begin in the directory of this file.

# The registry reaches it here; nobody else is let in.
listen = "{cosigner_listen}"
# Whose signatures make a configuration. Compare its SHA-256 with the registry's, in person.
anchor = "anchor"
# Name of this cosigner's key in the anchor.
key_name = "{cosigner_key}"
# SHA-256 of the first configuration: the only thing that is signed without acts. Compare it in person.
genesis = "{genesis}"
# SHA-256 of the SubjectPublicKeyInfo of the registry's TLS key.
registry_key = "{registry}"
# What was signed last. With an older copy of it this cosigner could sign one number twice; without it, it does not start.
state = "cosigner.state"

# Its holder can sign configurations in one state's name, which alone is not enough.
[configuration_key]
key = "configuration.key.pem"
passphrase_file = "passphrase"

[tls]
certificate = "tls.pem"
key = "tls.key.pem"
passphrase_file = "passphrase"
"#
        )
    }

    pub(super) fn admin_toml(&self, registry_tls: &[u8]) -> String {
        let Self { instance, admin_listen, .. } = self;
        let registry = Digest::of(registry_tls);
        format!(
            r#"# An administrator of the instance {instance}. Paths begin in the directory of this file.

# The registry's door for administrators.
registry = "{admin_listen}"
# SHA-256 of the SubjectPublicKeyInfo of the registry's TLS key.
registry_key = "{registry}"
# Whose signatures make a configuration: what the registry shows is verified with it.
anchor = "anchor"

# Its holder can apply for an act or approve one, never both.
[administrator]
certificate = "administrator.pem"
key = "administrator.key.pem"
passphrase_file = "passphrase"
"#
        )
    }
}
