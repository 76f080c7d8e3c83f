"""Where a build runs: this machine, a Flink cluster, Dataflow, or any other runner of Beam."""
