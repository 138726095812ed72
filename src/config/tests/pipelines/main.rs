//! Pipelines from YAML to a verdict: load, compile, add places. Samples, the cookbook, the pages and the schemas agree.

mod bad_samples;
mod cookbook;
mod mutations;
mod schemas;
mod verdict;
