//! Mail by SMTP: with TLS from the start on port 465, by STARTTLS on every other, and plain only to this machine.

use std::time::Duration;

use lettre::message::{Mailbox, header};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::Untold;

/// For a whole mail.
const WHOLE: Duration = Duration::from_secs(60);
/// TLS from the start. Source: RFC 8314, section 7.3.
const SUBMISSIONS: u16 = 465;

/// One mail.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// Who writes.
    pub from: &'a str,
    /// To whom.
    pub to: &'a [String],
    /// The subject.
    pub subject: &'a str,
    /// Plain text.
    pub text: &'a str,
    /// The message's number: mail programs show the same once.
    pub id: u64,
}

/// A mail server.
#[derive(Debug)]
pub struct Mailer(AsyncSmtpTransport<Tokio1Executor>);

impl Mailer {
    /// The server at `host:port`, with user and password where it wants them.
    ///
    /// # Errors
    /// [`Untold`].
    pub fn new(smtp: &str, login: Option<(String, String)>) -> Result<Self, Untold> {
        let wrong = || Untold::Never(format!("`{smtp}` is no `host:port`"));
        let (host, port) = smtp.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        let parameters =
            || TlsParameters::new(host.to_owned()).map_err(|error| Untold::later(format!("no TLS to {smtp}: {error}")));
        let tls = match (here, port) {
            (true, _) => Tls::None,
            (false, SUBMISSIONS) => Tls::Wrapper(parameters()?),
            (false, _) => Tls::Required(parameters()?),
        };
        let mut builder =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host).port(port).tls(tls).timeout(Some(WHOLE));
        if let Some((user, password)) = login {
            builder = builder.credentials(Credentials::new(user, password));
        }
        Ok(Self(builder.build()))
    }

    /// Sends one.
    ///
    /// # Errors
    /// [`Untold`].
    pub async fn send(&self, letter: &Letter<'_>) -> Result<(), Untold> {
        let mail = message(letter)?;
        let sent = tokio::time::timeout(WHOLE, self.0.send(mail)).await;
        match sent {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.is_permanent() => Err(Untold::Never(format!("the mail server refuses: {error}"))),
            Ok(Err(error)) => Err(Untold::outage(format!("the mail server: {error}"))),
            Err(_) => Err(Untold::outage("the mail server does not answer")),
        }
    }
}

fn message(letter: &Letter<'_>) -> Result<Message, Untold> {
    let mailbox = |text: &str| {
        text.parse::<Mailbox>().map_err(|error| Untold::Never(format!("`{text}` is no mail address: {error}")))
    };
    let from = mailbox(letter.from)?;
    let domain = from.email.domain().to_owned();
    let mut builder = Message::builder()
        .from(from)
        .subject(letter.subject)
        .message_id(Some(format!("<orchestrator-{}@{domain}>", letter.id)))
        .header(header::ContentType::TEXT_PLAIN);
    for to in letter.to {
        builder = builder.to(mailbox(to)?);
    }
    builder.body(letter.text.to_owned()).map_err(|error| Untold::Never(format!("no mail can be made: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_cannot_add_headers() {
        let to = ["b@example.org".to_owned()];
        let letter =
            Letter { from: "CI <ci@example.org>", to: &to, subject: "x\r\nBcc: evil@example.org", text: "t", id: 7 };
        let text = String::from_utf8(message(&letter).expect("a mail").formatted()).expect("text");
        assert!(!text.to_ascii_lowercase().contains("\nbcc:"), "{text}");
        assert!(text.contains("Message-ID: <orchestrator-7@example.org>"), "{text}");
    }

    #[test]
    fn what_is_no_server_or_address() {
        assert!(matches!(Mailer::new("mail.example.org", None), Err(Untold::Never(_))));
        let letter = Letter { from: "nobody", to: &[], subject: "", text: "", id: 1 };
        assert!(matches!(message(&letter), Err(Untold::Never(_))));
    }
}
