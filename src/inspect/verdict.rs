//! What is told in the end.

use std::path::Path;

/// One thing that is worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Something would fail.
    pub(super) serious: bool,
    pub(super) message: String,
    pub(super) remedy: String,
}

impl Finding {
    pub(super) fn error(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { serious: true, message: message.into(), remedy: remedy.into() }
    }

    pub(super) fn warning(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { serious: false, ..Self::error(message, remedy) }
    }
}

/// Everything that is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// What was seen.
    pub(super) seen: Vec<String>,
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
    pub(super) tried: usize,
    pub(super) succeeded: usize,
}

impl Verdict {
    pub(super) fn of(findings: Vec<Finding>) -> Self {
        Self { findings, ..Self::default() }
    }

    pub(super) fn would_fail(&self) -> bool {
        self.findings.iter().any(|finding| finding.serious)
    }

    /// As it is printed.
    pub(super) fn text(&self, path: &Path) -> String {
        let mut out = String::new();
        let mut line = |text: &str| {
            out.push_str(text);
            out.push('\n');
        };
        self.seen.iter().for_each(|seen| line(seen));
        let (errors, warnings): (Vec<_>, Vec<_>) = self.findings.iter().partition(|finding| finding.serious);
        for (word, findings) in [("error", &errors), ("warning", &warnings)] {
            for finding in findings {
                line(&format!("{word}: {}\n  {}", finding.message, finding.remedy));
            }
        }
        self.notes.iter().for_each(|note| line(&format!("note: {note}")));
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        line(&format!(
            "{}: {} of {} succeed ({}, {})",
            path.display(),
            self.succeeded,
            count(self.tried, "login"),
            count(errors.len(), "error"),
            count(warnings.len(), "warning"),
        ));
        out
    }
}
