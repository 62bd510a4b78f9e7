//! Calls a second of the control socket: `Status`, each connection asking again when it was answered.

use super::daemon::Daemon;
use super::{Failure, named};
use crate::measure::Values;
use openvmnet::client::{CallError, Client};
use std::thread;
use std::time::{Duration, Instant};

/// Over so many connections, each with a thread.
pub(super) fn measure(connections: usize, millis: u64) -> Result<Values, Failure> {
    let _daemon = Daemon::start()?;
    let mut clients = (0..connections)
        .map(|_| Client::connect_running())
        .collect::<Result<Vec<_>, _>>()?;
    let time = Duration::from_millis(millis);
    let began = Instant::now();
    let answered = thread::scope(|scope| -> Result<u64, Failure> {
        let ask = |client: &mut Client| -> Result<u64, CallError> {
            let mut answered = 0;
            while began.elapsed() < time {
                client.status()?;
                answered += 1;
            }
            Ok(answered)
        };
        let asking: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(move || ask(client)))
            .collect();
        let mut sum = 0;
        for one in asking {
            sum += one.join().map_err(|_| "a client panicked")??;
        }
        Ok(sum)
    })?;
    let row = format!("service_calls_{connections}");
    Ok(named(&[(
        &row,
        answered as f64 / began.elapsed().as_secs_f64(),
    )]))
}
