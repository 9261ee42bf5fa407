//! How names and texts are written in a pooler.toml.

/// A text in quotes.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The name of a table or of a setting.
pub fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

/// A literal in which nothing refers to the environment.
pub fn without_references(literal: &str) -> String {
    literal.replace("${", "$${")
}
