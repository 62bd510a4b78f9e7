//! One measurement of one path. Every one checks that the bytes of both ends agree, that the server saw the host's
//! address, and (for bulk TCP) that the network process worked for them.

use crate::control::{Agent, Count, Opened, Refusal, Reply, Request, Totals};
use crate::options::Options;
use crate::path::{Instance, Path};
use crate::process::{Busy, resident};
use crate::rows::{Experiment, Family};
use crate::testbed::Testbed;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread::sleep;
use std::time::Duration;

/// Values by row identifier.
pub(crate) type Values = Vec<(String, f64)>;

/// Flows that the memory row holds.
const HELD: usize = 1000;
/// Short connections at once.
const WORKERS: usize = 32;
/// One of so many connections may fail.
const FAILED_SHARE: u64 = 100;
/// How long datagrams may be underway.
const SETTLE: Duration = Duration::from_millis(250);

/// Datagrams of this family, up or down, with this many bytes of payload.
type Datagrams = (Family, bool, usize);

/// What is remembered from one measurement to the next.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    options: &'a Options,
    /// The pace at which the most datagrams arrived, by path and kind.
    paces: HashMap<(Path, Datagrams), u64>,
    token: u64,
}

fn seconds(time: f64) -> Duration {
    Duration::from_secs_f64(time)
}

fn elapsed(from: Count, to: Count) -> f64 {
    (to.nanos - from.nanos) as f64 / 1e9
}

impl<'a> Meter<'a> {
    /// A meter that has measured nothing yet.
    pub(crate) fn new(options: &'a Options) -> Self {
        Self {
            options,
            paces: HashMap::new(),
            token: 0,
        }
    }

    /// Makes one measurement.
    pub(crate) fn measure(
        &mut self,
        experiment: Experiment,
        path: Path,
        instance: &mut Instance,
        testbed: &mut Testbed,
    ) -> Result<Values, Refusal> {
        if let Experiment::Tcp { by: Family::V6, .. }
        | Experiment::Udp { by: Family::V6, .. }
        | Experiment::RequestResponse(Family::V6)
        | Experiment::Connections(Family::V6) = experiment
        {
            instance.await_ipv6()?;
        }
        match experiment {
            Experiment::Tcp { by, up, streams } => self.tcp(by, (up, streams), instance, testbed),
            Experiment::Udp { by, up, size } => self.udp((by, up, size), path, instance, testbed),
            Experiment::RequestResponse(by) => self.request_response(by, instance, testbed),
            Experiment::Connections(by) => self.connections(by, path, instance, testbed),
            Experiment::Memory => memory(instance, testbed),
            Experiment::Service(_)
            | Experiment::Pair(_)
            | Experiment::Ports(_)
            | Experiment::Privileged(_) => Err("this is not measured through a path".to_owned()),
        }
    }

    fn next_token(&mut self) -> u64 {
        self.token += 1;
        self.token
    }

    fn tcp(
        &mut self,
        by: Family,
        (up, streams): (bool, usize),
        instance: &mut Instance,
        testbed: &mut Testbed,
    ) -> Result<Values, Refusal> {
        let token = self.next_token();
        let server = testbed.stream_address(by);
        let start = if up {
            Request::Upload {
                server,
                streams,
                token,
            }
        } else {
            Request::Download {
                server,
                streams,
                token,
            }
        };
        instance.agent.tell(&start)?;
        sleep(seconds(self.options.lead_in()));
        let sink = if up {
            &mut testbed.server
        } else {
            &mut instance.agent
        };
        let (first, busy_first) = (sink.count(token)?, Busy::now(instance.network));
        sleep(seconds(self.options.seconds()));
        let (last, busy_last) = (sink.count(token)?, Busy::now(instance.network));
        let source = if up {
            &mut instance.agent
        } else {
            &mut testbed.server
        };
        source.tell(&Request::Halt { token })?;
        let client = instance.agent.totals(token)?;
        let server = testbed.server.totals(token)?;
        if client.bytes != server.bytes {
            return Err(format!(
                "the client counted {} bytes, the server {}",
                client.bytes, server.bytes
            ));
        }
        came_from_host(&server, by, (instance, testbed))?;

        let bytes = (last.bytes - first.bytes) as f64;
        if bytes == 0.0 {
            return Err("not one byte arrived while it was measured".to_owned());
        }
        let direction = if up { "up" } else { "down" };
        let mut values = vec![(
            format!("tcp{}_{direction}_{streams}", by.mark()),
            bytes * 8.0 / elapsed(first, last) / 1e9,
        )];
        // What it costs is told of IPv4.
        let told = streams == 1 && by == Family::V4;
        if told {
            let machine = busy_last.machine - busy_first.machine;
            values.push((format!("cpu_{direction}_machine"), machine / (bytes / 1e9)));
        }
        if let Some(network) = network_time(instance, busy_first, busy_last)?
            && told
        {
            values.push((format!("cpu_{direction}_network"), network / (bytes / 1e9)));
        }
        Ok(values)
    }

    fn udp(
        &mut self,
        kind: Datagrams,
        path: Path,
        instance: &mut Instance,
        testbed: &mut Testbed,
    ) -> Result<Values, Refusal> {
        let pace = match self.paces.get(&(path, kind)) {
            Some(pace) => *pace,
            None => self.find_pace(kind, instance, testbed)?,
        };
        self.paces.insert((path, kind), pace);
        let trial = self.datagrams(kind, pace, self.options.seconds(), instance, testbed)?;
        let (by, up, size) = kind;
        let direction = if up { "up" } else { "down" };
        let row = format!("udp{}_{direction}_{size}", by.mark());
        Ok(vec![
            (format!("{row}_lost"), trial.lost * 100.0),
            (row, trial.arrived / 1e3),
        ])
    }

    /// Looks for the pace at which the most arrives: first as fast as the sender goes, then from what arrived then
    /// upwards by halves until a tenth is lost or the sender's own limit is reached. Of paces that deliver the same
    /// within 3 % the slowest is taken, which loses least.
    fn find_pace(
        &mut self,
        kind: Datagrams,
        instance: &mut Instance,
        testbed: &mut Testbed,
    ) -> Result<u64, Refusal> {
        let flood = self.datagrams(kind, 0, 0.4, instance, testbed)?;
        let mut trials = vec![(0, flood.arrived)];
        let mut pace = flood.arrived.max(1000.0);
        for _ in 0..10 {
            if pace > flood.sent {
                break;
            }
            let trial = self.datagrams(kind, pace as u64, 0.4, instance, testbed)?;
            trials.push((pace as u64, trial.arrived));
            if trial.lost > 0.1 {
                break;
            }
            pace *= 1.4;
        }
        let most = trials
            .iter()
            .map(|(_, arrived)| *arrived)
            .fold(0.0, f64::max);
        let enough = trials.iter().filter(|(_, arrived)| *arrived >= 0.97 * most);
        // The flood (0) is the fastest, so it comes last.
        let slowest = enough.min_by_key(|(pace, _)| if *pace == 0 { u64::MAX } else { *pace });
        Ok(slowest.map_or(0, |(pace, _)| *pace))
    }

    fn datagrams(
        &mut self,
        (by, up, size): Datagrams,
        rate: u64,
        time: f64,
        instance: &mut Instance,
        testbed: &mut Testbed,
    ) -> Result<Trial, Refusal> {
        let token = self.next_token();
        let served = testbed.server_port(by, 0).ip();
        let any = match by {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let server_port = |agent: &mut Agent, request: Request| match agent.ask(&request)? {
            Reply::Port(port) => Ok(port),
            other => Err(format!("expected a port, got {other:?}")),
        };
        if up {
            let port = server_port(
                &mut testbed.server,
                Request::ReceiveDatagrams {
                    at: served,
                    from: None,
                    size,
                    token,
                },
            )?;
            let to = Some(testbed.server_port(by, port));
            instance.agent.tell(&Request::SendDatagrams {
                at: any,
                to,
                size,
                rate,
                token,
            })?;
        } else {
            let port = server_port(
                &mut testbed.server,
                Request::SendDatagrams {
                    at: served,
                    to: None,
                    size,
                    rate,
                    token,
                },
            )?;
            let from = Some(testbed.server_port(by, port));
            instance.agent.tell(&Request::ReceiveDatagrams {
                at: any,
                from,
                size,
                token,
            })?;
        }
        let (source, sink) = if up {
            (&mut instance.agent, &mut testbed.server)
        } else {
            (&mut testbed.server, &mut instance.agent)
        };
        sleep(Duration::from_millis(200));
        let (first, first_sent) = (sink.count(token)?, source.count(token)?);
        sleep(seconds(time));
        let (last, last_sent) = (sink.count(token)?, source.count(token)?);
        source.tell(&Request::Halt { token })?;
        sleep(SETTLE);
        sink.tell(&Request::Halt { token })?;
        let received = sink.totals(token)?;
        let sent = source.totals(token)?;
        if received.packets > sent.packets {
            return Err(format!(
                "{} datagrams arrived of {} sent",
                received.packets, sent.packets
            ));
        }
        if received.packets == 0 {
            return Err(format!("none of {} datagrams arrived", sent.packets));
        }
        came_from_host(if up { &received } else { &sent }, by, (instance, testbed))?;
        Ok(Trial {
            arrived: (last.packets - first.packets) as f64 / elapsed(first, last),
            sent: (last_sent.packets - first_sent.packets) as f64 / elapsed(first_sent, last_sent),
            lost: 1.0 - received.packets as f64 / sent.packets as f64,
        })
    }

    fn request_response(
        &mut self,
        by: Family,
        instance: &mut Instance,
        testbed: &mut Testbed,
    ) -> Result<Values, Refusal> {
        let token = self.next_token();
        let (rounds, millis) = self.options.rounds();
        let server = testbed.stream_address(by);
        let reply = instance.agent.ask(&Request::PingPong {
            server,
            rounds,
            millis,
            token,
        })?;
        let served = testbed.server.totals(token)?;
        came_from_host(&served, by, (instance, testbed))?;
        match reply {
            Reply::Latency(latency) if latency.rounds >= 100 => Ok(vec![
                (
                    format!("rr{}_p50", by.mark()),
                    latency.p50_nanos as f64 / 1e3,
                ),
                (
                    format!("rr{}_p99", by.mark()),
                    latency.p99_nanos as f64 / 1e3,
                ),
            ]),
            other => Err(format!("too few round trips: {other:?}")),
        }
    }

    fn connections(
        &mut self,
        by: Family,
        path: Path,
        instance: &mut Instance,
        testbed: &mut Testbed,
    ) -> Result<Values, Refusal> {
        let request = Request::Connections {
            servers: testbed.short_addresses(path, by)?,
            workers: WORKERS,
            lead_in_millis: (self.options.lead_in() * 1e3) as u64,
            millis: (self.options.seconds() * 1e3) as u64,
        };
        match instance.agent.ask(&request)? {
            Reply::Opened(Opened {
                completed: 0,
                failure,
                ..
            }) => Err(format!(
                "not one connection was completed: {}",
                failure.unwrap_or_default()
            )),
            Reply::Opened(opened) => {
                let why = opened.failure.as_deref().unwrap_or_default();
                if opened.failed > 0 {
                    eprintln!(
                        "    {} connections failed, the first because: {why}",
                        opened.failed
                    );
                }
                // A rate beside which many fail is a rate of something else.
                if opened.failed > opened.completed / FAILED_SHARE {
                    return Err(format!(
                        "{} connections failed beside {} completed, which is too many to compare: {why}",
                        opened.failed, opened.completed
                    ));
                }
                let time = opened.nanos as f64 / 1e9;
                Ok(vec![
                    (
                        format!("connections{}", by.mark()),
                        opened.completed as f64 / time,
                    ),
                    (
                        format!("connections{}_failed", by.mark()),
                        opened.failed as f64 / time,
                    ),
                ])
            }
            other => Err(format!("expected connections, got {other:?}")),
        }
    }
}

/// What came of one pace, in datagrams a second and as a share.
struct Trial {
    arrived: f64,
    sent: f64,
    lost: f64,
}

fn came_from_host(
    server: &Totals,
    by: Family,
    (instance, testbed): (&Instance, &Testbed),
) -> Result<(), Refusal> {
    let wanted = match (instance.seen, by) {
        (None, _) => testbed.host_address(by),
        (Some([v4, _]), Family::V4) => v4,
        (Some([_, v6]), Family::V6) => v6,
    };
    match server.peer {
        Some(peer) if peer == wanted => Ok(()),
        peer => Err(format!(
            "the server saw {peer:?} and not {wanted}: the path was not used"
        )),
    }
}

fn network_time(instance: &Instance, first: Busy, last: Busy) -> Result<Option<f64>, Refusal> {
    if instance.network.is_none() {
        return Ok(None);
    }
    match (first.network, last.network) {
        (Some(first), Some(last)) if last > first => Ok(Some(last - first)),
        (Some(_), Some(_)) => {
            Err("its network process did nothing meanwhile: the path was not used".to_owned())
        }
        _ => Err("its network process is gone".to_owned()),
    }
}

/// Of a path that was started for this and has moved nothing yet.
fn memory(instance: &mut Instance, testbed: &Testbed) -> Result<Values, Refusal> {
    let Some(network) = instance.network else {
        return Ok(Vec::new());
    };
    let read = || {
        resident(network)
            .map(|bytes| bytes as f64 / f64::from(1 << 20))
            .ok_or_else(|| "its network process is gone".to_owned())
    };
    sleep(Duration::from_millis(500));
    let idle = read()?;
    instance.agent.tell(&Request::Hold {
        server: testbed.short_address(),
        flows: HELD,
    })?;
    sleep(Duration::from_millis(500));
    let held = read()?;
    instance.agent.tell(&Request::Release)?;
    Ok(vec![
        ("rss_idle".to_owned(), idle),
        ("rss_1000".to_owned(), held),
    ])
}
