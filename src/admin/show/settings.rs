//! SHOW CONFIG: the settings table.

use super::{
    super::result::{Columns, Kind::Text, Row},
    text,
};
use crate::admin::commands::Commands;

pub(super) const CONFIG: Columns = &[("key", Text), ("value", Text), ("default", Text), ("changeable", Text)];

pub(super) fn config(commands: &Commands) -> Vec<Row> {
    let rows = commands.process.config().rows().into_iter().map(|s| {
        let changeable = if s.changeable { "yes" } else { "no" };
        vec![text(s.key), s.value, s.default, text(changeable)]
    });
    rows.collect()
}
