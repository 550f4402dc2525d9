//! Templates: files named like what they produce, escaped by the syntax that the name tells.
//!
//! Undefined is an error, and every value that is not marked `safe` goes through the escaping of its
//! syntax. `safe` stands only behind values that Rust code made of parts that it escaped itself.

use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior};

use super::{RenderError, token, unit};

/// A text that the syntax where it should stand cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot write {text:?}: {reason}")]
pub struct Unrenderable {
    text: String,
    reason: &'static str,
}

impl Unrenderable {
    /// The text and what is wrong with it.
    pub fn new(text: &str, reason: &'static str) -> Self {
        Self { text: text.to_owned(), reason }
    }
}

/// Renders the template `name` (a file of `src/render/templates`, without `.j2`).
pub fn render(name: &'static str, context: Value) -> Result<String, RenderError> {
    let rendered = match &*ENVIRONMENT {
        Ok(environment) => environment.get_template(name).and_then(|template| template.render(context)),
        Err(error) => Err(Error::new(ErrorKind::SyntaxError, error.to_string())),
    };
    rendered.map_err(|source| RenderError::Template { template: name, source })
}

macro_rules! templates {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("templates/", $name, ".j2")))),*]
    };
}

static ENVIRONMENT: LazyLock<Result<Environment<'static>, Error>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build()?,
    );
    environment.set_auto_escape_callback(syntax);
    environment.set_formatter(write_escaped);
    environment.add_filter("argument", |text: String| escaped(unit::argument(&text)));
    environment.add_filter("word", |text: String| escaped(unit::word(&text)));
    for (name, source) in templates![
        "app.pod",
        "app.network",
        "vpn.container",
        "service.container",
        "name.volume",
        "wg0.conf",
        "peer.conf",
        "host.nft",
        "pod.nft",
        "Caddyfile",
        "units/fstab",
        "units/crypttab",
        "units/cryptsetup.conf",
        "units/repart.conf",
        "units/emergency.conf",
        "units/bless-boot.conf",
        "units/networkd.conf",
        "units/sepulcher-resolv.service",
        "units/sepulcher-reactor.path",
        "units/sepulcher-reactor.service",
        "units/sepulcher-awaken.service",
        "units/sepulcher-fall-back.service",
        "units/sepulcher-fall-back.timer",
        "units/sepulcher-firewall.service",
        "units/sepulcher-health.service",
        "units/sepulcher-console@.service",
        "units/sepulcher-control.socket",
        "units/sepulcher-control@.service",
        "units/tmpfiles.conf",
        "units/uplink.network",
        "units/slot.transfer",
    ] {
        environment.add_template(name, source)?;
    }
    Ok(environment)
});

/// The syntax that a template's name tells.
fn syntax(name: &str) -> AutoEscape {
    match name.rsplit_once('.').map_or(name, |(_, extension)| extension) {
        "pod" | "network" | "container" | "volume" | "service" | "socket" | "path" | "timer" | "target"
        | "mount" => AutoEscape::Custom("unit".into()),
        _ => AutoEscape::Custom("token".into()),
    }
}

fn write_escaped(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let text = value.to_string();
    let text = match state.auto_escape() {
        _ if value.is_safe() => text,
        AutoEscape::Custom(syntax) if syntax == "unit" => unit::value(&text).map_err(refused)?,
        _ => token::token(&text).map_err(refused)?,
    };
    out.write_str(&text).map_err(Error::from)
}

fn escaped(text: Result<String, Unrenderable>) -> Result<Value, Error> {
    text.map(Value::from_safe_string).map_err(refused)
}

fn refused(error: Unrenderable) -> Error {
    Error::new(ErrorKind::InvalidOperation, error.to_string()).with_source(error)
}

/// A value that is already in the syntax of the template.
pub fn safe(text: impl Into<String>) -> Value {
    Value::from_safe_string(text.into())
}

/// A list of displayed values, each escaped where it is used.
pub fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> Value {
    Value::from(items.into_iter().map(|item| Value::from(item.to_string())).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_parses() {
        assert!(ENVIRONMENT.is_ok(), "{:?}", ENVIRONMENT.as_ref().err());
    }

    #[test]
    fn an_undefined_value_is_an_error() {
        let error = render("name.volume", Value::from_iter(Vec::<(String, Value)>::new())).unwrap_err();
        assert!(matches!(error, RenderError::Template { template: "name.volume", .. }), "{error}");
    }
}
