//! Which clients ask for the last numbers of sequences: known by those of the same user and application_name that have
//! done so before.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::session::sequences::Habit;

/// Most kinds of clients that are told apart.
const MOST: usize = 1000;

/// What the clients of a database are known for.
#[derive(Debug, Default)]
pub struct Habits(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<(String, String), Habit>,
    /// There are too many names: this holds for everybody.
    everybody: Habit,
}

impl Habits {
    /// What a client is known for.
    pub fn of(&self, user: &str, application: &str) -> Habit {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.by_name.is_empty() {
            return Habit::Never;
        }
        let found = known.by_name.get(&(user.to_owned(), application.to_owned()));
        found.copied().unwrap_or_default().max(known.everybody)
    }

    /// A client has done this.
    pub fn learn(&self, user: &str, application: &str, habit: Habit) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (user.to_owned(), application.to_owned());
        if known.by_name.len() >= MOST && !known.by_name.contains_key(&key) {
            known.everybody = known.everybody.max(habit);
            return;
        }
        let entry = known.by_name.entry(key).or_default();
        *entry = habit.max(*entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_known_by_user_and_application() {
        let habits = Habits::default();
        assert_eq!(habits.of("app", "web"), Habit::Never);
        habits.learn("app", "web", Habit::Later);
        habits.learn("app", "web", Habit::Amid);
        assert_eq!(habits.of("app", "web"), Habit::Later);
        assert_eq!((habits.of("app", "other"), habits.of("other", "web")), (Habit::Never, Habit::Never));
    }

    #[test]
    fn names_without_end_cost_no_memory_without_end() {
        let habits = Habits::default();
        (0..=MOST).for_each(|n| habits.learn("app", &n.to_string(), Habit::Amid));
        assert_eq!(habits.of("app", "never seen"), Habit::Amid);
        assert_eq!(habits.0.lock().unwrap().by_name.len(), MOST);
    }
}
