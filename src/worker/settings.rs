//! `SET pooler.route`, `SHOW pooler.read_consistency` and the like: what a client asks of pooler itself.
//!
//! As PostgreSQL does with its own settings (guc.c): what a transaction has set is undone when it is rolled back, and what it
//! has set with SET LOCAL also when it is committed. Savepoints are not followed: what is undone then takes names and the
//! fate of statements that pooler does not read.

use super::{
    Worker,
    answer::Answer,
    routing::Routing,
    tokens::{assign, assign_token},
};
use crate::{
    cluster::Token,
    config::{ReadConsistency, Route, value_of, word_of},
    protocol::TransactionStatus,
    sql::PoolerStatement,
};

/// What a client has asked for by itself; `None`: as it is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(super) route: Option<Route>,
    pub(super) consistency: Option<ReadConsistency>,
    /// Its reads see everything up to here.
    pub(super) read_after: Option<Token>,
}

/// What holds when the transaction is over that has changed settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcomes {
    committed: Settings,
    rolled_back: Settings,
}

/// What a statement belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    /// Nothing else: what it sets holds.
    Nothing,
    /// What only a Sync will end: an error up to there undoes it.
    Batch,
    /// A transaction block.
    Block,
}

impl Settings {
    /// False, and nothing is changed, if there is no such name or value.
    pub(super) fn set(&mut self, name: &str, value: &str) -> bool {
        match name {
            "pooler.route" => assign(&mut self.route, value_of(value, Route::WORDS)),
            "pooler.read_after" => assign_token(&mut self.read_after, value),
            "pooler.read_consistency" => {
                assign(&mut self.consistency, value_of(value, ReadConsistency::WORDS))
            }
            _ => false,
        }
    }

    /// Back to what it was at login.
    fn reset(&mut self, name: &str, at_login: Self) {
        match name {
            "pooler.route" => self.route = at_login.route,
            "pooler.read_after" => self.read_after = at_login.read_after,
            _ => self.consistency = at_login.consistency,
        }
    }

    /// Carries out a SET or RESET: its tag, or why not.
    fn apply(&mut self, statement: &PoolerStatement, at_login: Self) -> Result<&'static str, Answer> {
        let (name, value, tag) = match statement {
            PoolerStatement::Set { name, value, .. } => (name, value.as_deref(), "SET"),
            PoolerStatement::Reset { name } => (name, None, "RESET"),
            PoolerStatement::Show { name } => return Err(Answer::unknown(name)),
            PoolerStatement::Unclear => return Err(Answer::unclear()),
        };
        let hint = match &**name {
            "pooler.route" => "Values: auto, primary, replica.",
            "pooler.read_after" => "A token that SHOW pooler.lsn has given, as 1:0/301E018, or nothing.",
            "pooler.read_consistency" => "Values: strict, fresh, session, eventual, primary.",
            _ => return Err(Answer::unknown(name)),
        };
        match value {
            None => self.reset(name, at_login),
            Some(value) if !self.set(name, value) => return Err(Answer::invalid(name, value, hint)),
            Some(_) => {}
        }
        Ok(tag)
    }
}

impl Routing {
    /// Carries out a SET or RESET.
    fn apply(&mut self, statement: &PoolerStatement, within: Within) -> Answer {
        let mut changed = self.settings;
        let tag = match changed.apply(statement, self.at_login) {
            Ok(tag) => tag,
            Err(refused) => return refused,
        };
        let local = matches!(statement, PoolerStatement::Set { local: true, .. });
        if local && within != Within::Block {
            return Answer::outside_of_block(tag);
        }
        let at_login = self.at_login;
        if let Some(outcomes) = self.outcomes(within)
            && !local
        {
            // It is known to be in order.
            let _ = outcomes.committed.apply(statement, at_login);
        }
        self.settings = changed;
        Answer::Done(tag)
    }

    /// What settings will be behind what they are changed in now.
    fn outcomes(&mut self, within: Within) -> Option<&mut Outcomes> {
        if within == Within::Nothing {
            return None;
        }
        let now = self.settings;
        Some(self.outcomes.get_or_insert_with(|| Box::new(Outcomes { committed: now, rolled_back: now })))
    }

    /// RESET ALL; nothing that came before it matters any more, unless a transaction is open.
    fn reset_all(&mut self, within: Within) {
        let at_login = self.at_login;
        match self.outcomes(within) {
            Some(outcomes) => outcomes.committed = at_login,
            None => self.outcomes = None,
        }
        self.settings = at_login;
    }

    /// The transaction is over that may have changed settings.
    pub(super) fn transaction_ended(&mut self, committed: bool) {
        if let Some(outcomes) = self.outcomes.take() {
            self.settings = if committed { outcomes.committed } else { outcomes.rolled_back };
        }
    }
}

impl Worker {
    /// Carries out a statement about pooler. `None`: its answer has to be waited for.
    pub(super) fn carry_out_setting(
        &mut self,
        slot: usize,
        statement: &PoolerStatement,
        within: Within,
    ) -> Option<Answer> {
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
            PoolerStatement::Set { name, value: Some(value), .. } if &**name == "pooler.read_after" => {
                self.refuse_token(slot, value).unwrap_or_else(|| self.apply_setting(slot, statement, within))
            }
            PoolerStatement::Set { .. } | PoolerStatement::Reset { .. } => {
                self.apply_setting(slot, statement, within)
            }
        };
        Some(answer)
    }

    fn apply_setting(&mut self, slot: usize, statement: &PoolerStatement, within: Within) -> Answer {
        let Some(client) = self.clients.get_mut(slot) else { return Answer::Done("SET") };
        client.routing.get_or_insert_default().apply(statement, within)
    }

    /// A client's server has carried out a RESET ALL or DISCARD ALL.
    pub(super) fn reset_settings(&mut self, slot: usize) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let server = client.state.server().and_then(|server| self.servers.get(server));
        let inside = server.is_some_and(|server| server.session.status != TransactionStatus::Idle);
        if let Some(routing) = &mut client.routing {
            routing.reset_all(if inside { Within::Block } else { Within::Nothing });
        }
    }

    /// A client's transaction is over.
    pub(super) fn transaction_ended(&mut self, slot: usize, committed: bool) {
        if let Some(routing) = self.clients.get_mut(slot).and_then(|client| client.routing.as_mut()) {
            routing.transaction_ended(committed);
        }
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
                let token = client.routing.as_ref().and_then(|routing| routing.settings.read_after);
                Some(token.map(|token| token.to_string()).unwrap_or_default())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: &str, local: bool) -> PoolerStatement {
        let value = (value != "default").then(|| value.into());
        PoolerStatement::Set { name: "pooler.route".into(), value, local }
    }

    #[test]
    fn settings_of_a_transaction_end_as_those_of_postgresql_do() {
        let (primary, replica) = (Some(Route::Primary), Some(Route::Replica));
        for (statements, inside, committed) in [
            (vec![("primary", false)], primary, primary),
            (vec![("primary", true)], primary, None),
            (vec![("primary", false), ("replica", true)], replica, primary),
            (vec![("primary", true), ("replica", false)], replica, replica),
            (vec![("primary", false), ("default", true)], None, primary),
            (vec![("primary", true), ("default", false)], None, None),
        ] {
            for commits in [true, false] {
                let mut routing = Routing::default();
                for (value, local) in &statements {
                    assert_eq!(routing.apply(&set(value, *local), Within::Block), Answer::Done("SET"));
                }
                assert_eq!(routing.settings.route, inside, "{statements:?}");
                routing.transaction_ended(commits);
                let expected = committed.filter(|_| commits);
                assert_eq!(routing.settings.route, expected, "{statements:?} {commits}");
                // Nothing is left of it for the next one.
                routing.apply(&set("auto", false), Within::Nothing);
                routing.transaction_ended(false);
                assert_eq!(routing.settings.route, Some(Route::Auto));
            }
        }
    }

    #[test]
    fn what_is_refused_or_local_to_nothing_changes_nothing() {
        let mut routing = Routing::default();
        for within in [Within::Nothing, Within::Batch] {
            assert_eq!(routing.apply(&set("primary", true), within), Answer::outside_of_block("SET"));
        }
        for local in [true, false] {
            assert!(matches!(routing.apply(&set("x", local), Within::Block), Answer::Refused("22023", ..)));
        }
        assert!(routing.outcomes.is_none());
        assert_eq!(routing.settings, Settings::default());
        let reset = PoolerStatement::Reset { name: "pooler.route".into() };
        assert_eq!(routing.apply(&reset, Within::Nothing), Answer::Done("RESET"));
    }
}
