//! Servers of which any will do: one after the other is tried, and none is waited for in vain.

use std::{future::Future, time::Duration};

use tokio::{task::JoinSet, time::timeout};

use super::{ConnectError, Failure};

/// The first of these attempts that succeeds, and its number. Each begins when the one before has failed, or has taken so
/// long; it goes on then, and may still be the first. `failed` is told which have failed, and (`None`) which had been
/// waited for in vain.
pub async fn first_of<T, F>(
    attempts: impl IntoIterator<Item = (Duration, F)>,
    mut failed: impl FnMut(usize, Option<&ConnectError>),
) -> Result<(usize, T), ConnectError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ConnectError>> + Send + 'static,
{
    let mut attempts = attempts.into_iter().enumerate();
    let mut next = attempts.next();
    let mut under_way = JoinSet::new();
    let mut silent = Vec::new();
    let mut worst = None;
    loop {
        let mut patience = Duration::ZERO;
        if let Some((number, (time, attempt))) = next.take() {
            under_way.spawn(async move { (number, attempt.await) });
            silent.push(number);
            patience = time;
        }
        next = attempts.next();
        let ended = if next.is_none() {
            under_way.join_next().await
        } else {
            match timeout(patience, under_way.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        };
        match ended {
            Some(Ok((number, Ok(value)))) => {
                silent.iter().filter(|other| **other < number).for_each(|other| failed(*other, None));
                return Ok((number, value));
            }
            Some(Ok((number, Err(error)))) => {
                silent.retain(|other| *other != number);
                failed(number, Some(&error));
                worst = Some(worse(worst, error));
            }
            Some(Err(_)) => worst = Some(worse(worst, ConnectError::Protocol("the login was given up"))),
            None if next.is_none() => return Err(worst.unwrap_or(ConnectError::Closed)),
            None => {}
        }
    }
}

/// What a server said is worth more than that another one could not be reached: it does not pass by itself.
fn worse(known: Option<ConnectError>, new: ConnectError) -> ConnectError {
    match known {
        Some(known) if known.failure() != Failure::Unreachable => known,
        Some(known) if new.failure() == Failure::Unreachable => known,
        _ => new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of an attempt at once; `None`: it takes for ever.
    type Script = Option<Result<(), ConnectError>>;

    fn refused() -> Script {
        Some(Err(ConnectError::TlsRefused))
    }

    fn unreachable() -> Script {
        Some(Err(ConnectError::Closed))
    }

    async fn run(scripts: Vec<Script>) -> (Result<usize, String>, Vec<(usize, bool)>) {
        let attempts = scripts.into_iter().map(|script| {
            let patience =
                if script.is_some() { Duration::from_secs(3600) } else { Duration::from_millis(1) };
            let attempt = async {
                match script {
                    Some(result) => result,
                    None => std::future::pending().await,
                }
            };
            (patience, attempt)
        });
        let mut told = Vec::new();
        let first = first_of(attempts, |number, error| told.push((number, error.is_some()))).await;
        (first.map(|(number, ())| number).map_err(|error| error.to_string()), told)
    }

    #[tokio::test]
    async fn first_that_answers_is_taken_and_others_are_told_of() {
        let fine = || Some(Ok(()));
        for (scripts, first, told) in [
            (vec![fine(), fine()], Ok(0), vec![]),
            (vec![unreachable(), fine()], Ok(1), vec![(0, true)]),
            (vec![None, fine()], Ok(1), vec![(0, false)]),
            (vec![None, refused(), fine(), fine()], Ok(2), vec![(1, true), (0, false)]),
            (vec![unreachable(), refused()], Err("server refused SSL"), vec![(0, true), (1, true)]),
            (vec![refused(), unreachable()], Err("server refused SSL"), vec![(0, true), (1, true)]),
        ] {
            let (found, heard) = run(scripts).await;
            assert_eq!((found, heard), (first.map_err(str::to_owned), told));
        }
        assert_eq!(run(Vec::new()).await.0, Err(ConnectError::Closed.to_string()));
    }
}
