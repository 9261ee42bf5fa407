//! `SET pooler.route`, `SHOW pooler.read_consistency` and the like: what a client asks of pooler itself.

use super::{Worker, answer::Answer};
use crate::{
    config::{ReadConsistency, Route, word_of},
    sql::PoolerStatement,
};

impl Worker {
    /// Carries out a statement about pooler. `None`: its answer has to be waited for.
    pub(super) fn carry_out_setting(&mut self, slot: usize, statement: &PoolerStatement) -> Option<Answer> {
        let answer = match statement {
            PoolerStatement::Unclear => Answer::unclear(),
            PoolerStatement::Show { name } if &**name == "pooler.lsn" => return self.tell_lsn(slot),
            PoolerStatement::Show { name } => match self.setting_of(slot, name) {
                Some(value) => Answer::Value { name: name.to_string(), value },
                None => Answer::unknown(name),
            },
            PoolerStatement::Set { name, .. } | PoolerStatement::Reset { name }
                if &**name == "pooler.lsn" =>
            {
                Answer::fixed(name)
            }
            PoolerStatement::Set { name, value, .. } if &**name == "pooler.read_after" => {
                self.refuse_token(slot, value).unwrap_or_else(|| self.apply_setting(slot, statement))
            }
            PoolerStatement::Set { .. } | PoolerStatement::Reset { .. } => {
                self.apply_setting(slot, statement)
            }
        };
        Some(answer)
    }

    fn apply_setting(&mut self, slot: usize, statement: &PoolerStatement) -> Answer {
        let Some(client) = self.clients.get_mut(slot) else { return Answer::Done("SET") };
        client.routing.get_or_insert_default().apply(statement)
    }

    /// There is such a setting.
    pub(super) fn is_shown(&self, slot: usize, name: &str) -> bool {
        name == "pooler.lsn" || self.setting_of(slot, name).is_some()
    }

    fn setting_of(&self, slot: usize, name: &str) -> Option<String> {
        let client = self.clients.get(slot)?;
        match name {
            "pooler.route" => word_of(&self.wanted_route(client), Route::WORDS).map(str::to_owned),
            "pooler.read_consistency" => {
                word_of(&self.consistency(client), ReadConsistency::WORDS).map(str::to_owned)
            }
            "pooler.read_after" => {
                let token = client.routing.as_ref().and_then(|routing| routing.read_after);
                Some(token.map(|token| token.to_string()).unwrap_or_default())
            }
            _ => None,
        }
    }
}
