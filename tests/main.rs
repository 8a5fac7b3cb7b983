mod runner_contract;
mod runner_local;

fn main() {}
