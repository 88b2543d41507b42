//! Random worlds, each from one seed: whatever happens, the broker does what the reference model says.

use ipc_tests::generator::Action;
use ipc_tests::simulation::run_all;

const STEPS: usize = 500;

#[test]
fn whatever_happens_the_broker_keeps_its_promises() {
    let coverage = run_all(1_000, 100_000, STEPS);
    eprintln!("{}", coverage.report());
    let missing = coverage.missing(Action::NAMES);
    assert!(missing.is_empty(), "never occurred: {missing:?}");
}
