//! Why an authentication exchange failed, in PgBouncer's words (where it has them) with PostgreSQL's SQLSTATE.
//! Of a wrong password clients hear PostgreSQL's words: see `client::error`.

use crate::error::Report;

/// A failed exchange, with a client or with a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    // Towards clients
    /// Wrong password, or unknown user: the two are not told apart.
    #[error("password authentication failed")]
    Password,
    /// Wrong SCRAM proof, or unknown user.
    #[error("SASL authentication failed")]
    Sasl,
    /// auth_type trust, unknown user.
    #[error("\"trust\" authentication failed")]
    Trust,
    #[error("empty password returned by client")]
    EmptyPassword,
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    /// A SCRAM message that breaks the grammar, or a password message that is none.
    #[error("malformed SCRAM message")]
    Malformed(&'static str),
    #[error("malformed password message")]
    MalformedPassword,
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    #[error("client requires an unsupported SCRAM extension")]
    Extension,
    #[error("SCRAM channel binding negotiation error")]
    ChannelBindingNegotiation,
    #[error("unsupported SCRAM channel-binding type")]
    ChannelBindingType,
    #[error("SCRAM channel binding check failed")]
    ChannelBindingCheck,
    #[error("invalid SCRAM response: nonce does not match")]
    Nonce,

    // Towards servers
    /// The server offers only methods that the pooler, or the credentials at hand, cannot use.
    #[error("server login failed: none of the server's SASL authentication mechanisms are supported")]
    NoMechanism,
    /// A message of the server that breaks the grammar or the bounds.
    #[error("server login failed: malformed SCRAM message from server: {0}")]
    ServerMessage(&'static str),
    /// `e=` in the server's last message.
    #[error("server login failed: SCRAM authentication failed: {0}")]
    ServerRefused(String),
    /// The server could not prove that it knows the password.
    #[error("server login failed: invalid server signature")]
    ServerSignature,

    /// The operating system gave no random bytes, or a task was cancelled.
    #[error("internal error during authentication")]
    Internal,
}

impl Report for AuthError {
    fn sqlstate(&self) -> &'static str {
        match self {
            Self::Password | Self::Sasl | Self::EmptyPassword => "28P01",
            Self::Trust | Self::ChannelBindingNegotiation | Self::ChannelBindingCheck => "28000",
            Self::AuthorizationIdentity | Self::Extension => "0A000",
            Self::Mechanism
            | Self::Malformed(_)
            | Self::MalformedPassword
            | Self::ChannelBindingType
            | Self::Nonce
            | Self::ServerMessage(_) => "08P01",
            Self::NoMechanism | Self::ServerRefused(_) | Self::ServerSignature => "28000",
            Self::Internal => "XX000",
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Malformed(what) => Some((*what).to_owned()),
            Self::ChannelBindingNegotiation => Some(
                "The client supports SCRAM channel binding but thinks the server does not. \
                 However, this server does support channel binding."
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
