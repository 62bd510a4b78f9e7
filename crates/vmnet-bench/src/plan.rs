//! The order of a run: experiment by experiment, repetition by repetition, the paths in turn, so that a drift of the
//! machine meets all of them.

use crate::measure::{Meter, Values};
use crate::options::Options;
use crate::pair;
use crate::path::{Instance, Kind, Path};
use crate::ports;
use crate::privileged;
use crate::report;
use crate::rows::{self, Experiment, Row, experiments};
use crate::service;
use crate::targets;
use crate::testbed::Testbed;
use std::collections::{BTreeMap, HashMap};

/// A path that cannot be started this often in a row is given up.
const STARTS: usize = 3;

/// What was measured of one row on one path.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    pub(crate) samples: Vec<f64>,
    pub(crate) failures: Vec<String>,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Results {
    paths: Vec<Path>,
    cells: BTreeMap<(String, Path), Cell>,
}

impl Results {
    /// Nothing yet, of these paths.
    pub(crate) fn new(paths: Vec<Path>) -> Self {
        Self {
            paths,
            cells: BTreeMap::new(),
        }
    }

    /// The paths of the run.
    pub(crate) fn paths(&self) -> impl Iterator<Item = Path> {
        self.paths.iter().copied()
    }

    /// Whether the run was to measure this path.
    pub(crate) fn asked(&self, path: Path) -> bool {
        self.paths.contains(&path)
    }

    /// Adds one sample.
    pub(crate) fn add(&mut self, row: &str, path: Path, value: f64) {
        self.cells
            .entry((row.to_owned(), path))
            .or_default()
            .samples
            .push(value);
    }

    /// Notes that an experiment failed, in all of its rows.
    fn fail(&mut self, experiment: Experiment, path: Path, why: &str) {
        for row in rows::all().filter(|row| row.experiment == experiment) {
            self.cells
                .entry((row.id.to_owned(), path))
                .or_default()
                .failures
                .push(why.to_owned());
        }
    }

    /// What is known of a row on a path.
    pub(crate) fn cell(&self, row: &Row, path: Path) -> Option<&Cell> {
        self.cells.get(&(row.id.to_owned(), path))
    }

    /// The median of the samples.
    pub(crate) fn median(&self, row: &Row, path: Path) -> Option<f64> {
        let mut samples = self.cell(row, path)?.samples.clone();
        samples.sort_unstable_by(f64::total_cmp);
        let middle = samples.len() / 2;
        let upper = *samples.get(middle)?;
        let even = samples.len().is_multiple_of(2);
        Some(if even {
            f64::midpoint(*samples.get(middle - 1)?, upper)
        } else {
            upper
        })
    }

    /// The median as a share of kernel NAT's at the same MTU.
    pub(crate) fn ratio(&self, row: &Row, path: Path) -> Option<f64> {
        let kernel = self.median(
            row,
            Path {
                kind: Kind::Kernel,
                mtu: path.mtu,
            },
        )?;
        let ours = self.median(row, path)?;
        (kernel > 0.0).then(|| ours / kernel)
    }
}

/// The paths that stay up from one experiment to the next, and those that were given up.
#[derive(Debug, Default)]
struct Pool {
    running: HashMap<Path, Instance>,
    failed_starts: HashMap<Path, usize>,
}

impl Pool {
    fn start(
        &mut self,
        path: Path,
        testbed: &Testbed,
        options: &Options,
    ) -> Result<Instance, String> {
        let failed = self.failed_starts.entry(path).or_default();
        if *failed >= STARTS {
            return Err(format!("given up after {STARTS} failed starts"));
        }
        match Instance::start(path, testbed, options) {
            Ok(instance) => {
                *failed = 0;
                Ok(instance)
            }
            Err(why) => {
                *failed += 1;
                Err(format!("cannot start: {why}"))
            }
        }
    }
}

/// Runs the bench and prints its report. `false` if `--check` was asked for and not passed.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let rows: Vec<&Row> = rows::all()
        .filter(|row| row.chosen(&options.only, &options.except))
        .collect();
    if options.list {
        for row in &rows {
            println!("{:20} {} ({})", row.id, row.title.trim(), row.unit);
        }
        return Ok(true);
    }
    if rows.is_empty() {
        return Err("no row matches --only and not --except; --list shows them".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Err("network namespaces need root: run it with sudo (the rootless paths still run as an ordinary user)"
            .to_owned());
    }
    if let Some(missing) = crate::path::find_program("ip")
        .is_none()
        .then_some("ip is not installed: apt install iproute2")
    {
        return Err(missing.to_owned());
    }
    let facts = report::facts::Facts::read(options);
    let results = measure(options, &rows)?;
    let verdicts: Vec<_> = rows
        .iter()
        .map(|row| targets::judge(row, &results))
        .collect();
    print!(
        "{}",
        report::table::render(&rows, &results, &verdicts, &facts, options)
    );
    if let Some(file) = &options.json {
        let text = report::json::render(&rows, &results, &verdicts, &facts, options);
        std::fs::write(file, text)
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    Ok(!options.check || verdicts.iter().flatten().all(|verdict| verdict.met))
}

fn measure(options: &Options, rows: &[&Row]) -> Result<Results, String> {
    let paths: Vec<Path> = options
        .mtu
        .iter()
        .flat_map(|&mtu| options.paths.iter().map(move |&kind| Path { mtu, kind }))
        .collect();
    let mut results = Results::new(paths.clone());
    let mut testbed = Testbed::new(options)?;
    let mut pool = Pool::default();
    let mut meter = Meter::new(options);
    let experiments = experiments(rows);
    let total = experiments.len() * options.repeat();
    for (number, experiment) in experiments.iter().enumerate() {
        for repetition in 0..options.repeat() {
            let round = number * options.repeat() + repetition + 1;
            // Each repetition begins with another path, so that none always follows the same neighbour's warm caches.
            for at in 0..paths.len() {
                let Some(&path) = paths.get((at + repetition) % paths.len()) else {
                    continue;
                };
                if !experiment.is_of(path, options) {
                    continue;
                }
                if let Some(why) = path.kind.missing(options) {
                    results.fail(*experiment, path, &why);
                    continue;
                }
                let outcome = attempt(
                    *experiment,
                    path,
                    &mut pool,
                    &mut meter,
                    &mut testbed,
                    options,
                );
                let shown = outcome
                    .as_ref()
                    .map_or_else(|why| format!("FAILED: {why}"), brief);
                eprintln!("[{round}/{total}] {experiment:?} {}: {shown}", path.name());
                match outcome {
                    Ok(values) => values
                        .into_iter()
                        .for_each(|(row, value)| results.add(&row, path, value)),
                    Err(why) => results.fail(*experiment, path, &why),
                }
            }
        }
    }
    Ok(results)
}

fn brief(values: &Values) -> String {
    if values.is_empty() {
        return "has no network process".to_owned();
    }
    values
        .iter()
        .map(|(row, value)| format!("{row} {value:.3}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn attempt(
    experiment: Experiment,
    path: Path,
    pool: &mut Pool,
    meter: &mut Meter<'_>,
    testbed: &mut Testbed,
    options: &Options,
) -> Result<Values, String> {
    if let Experiment::Service(part) = experiment {
        return service::measure(part, path, testbed, options);
    }
    if let Experiment::Ports(part) = experiment {
        return ports::measure(part, testbed, options);
    }
    if let Experiment::Pair(part) = experiment {
        return pair::measure(part, path, testbed, options);
    }
    if let Experiment::Privileged(part) = experiment {
        return privileged::measure(part, path, meter, testbed, options);
    }
    // Memory is that of a path which has moved nothing yet; the others share one that is warm.
    let kept = if experiment == Experiment::Memory {
        None
    } else {
        pool.running.remove(&path)
    };
    let mut instance = match kept {
        Some(instance) => instance,
        None => pool.start(path, testbed, options)?,
    };
    let outcome = meter.measure(experiment, path, &mut instance, testbed);
    // After a failure the instance is dropped and the next experiment starts it afresh.
    if outcome.is_ok() && experiment != Experiment::Memory {
        pool.running.insert(path, instance);
    }
    outcome
}
