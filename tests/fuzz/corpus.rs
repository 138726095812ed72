//! Inputs worth mutating: the seeds, and whatever made a target do something it had not done before.

use std::collections::BTreeSet;

use crate::random::Random;

/// Inputs kept beside the seeds; a newcomer beyond that replaces one of them.
const MAX_KEPT: usize = 4096;

pub(crate) struct Corpus {
    inputs: Vec<String>,
    seeds: usize,
    reached: BTreeSet<u64>,
}

impl Corpus {
    pub(crate) fn new(seeds: &[&str]) -> Self {
        Self { inputs: seeds.iter().map(|&s| s.to_owned()).collect(), seeds: seeds.len(), reached: BTreeSet::new() }
    }

    /// Remembers what an input did; true when nothing did it before.
    pub(crate) fn note(&mut self, reached: u64) -> bool {
        self.reached.insert(reached)
    }

    pub(crate) fn keep(&mut self, input: String, reached: u64, random: &mut Random) {
        if !self.note(reached) {
            return;
        }
        if self.inputs.len() < self.seeds + MAX_KEPT {
            self.inputs.push(input);
        } else {
            let at = self.seeds + random.below(MAX_KEPT);
            self.inputs[at] = input;
        }
    }

    pub(crate) fn pick(&self, random: &mut Random) -> &str {
        random.pick(&self.inputs).map_or("", String::as_str)
    }

    pub(crate) fn len(&self) -> usize {
        self.inputs.len()
    }

    pub(crate) fn behaviours(&self) -> usize {
        self.reached.len()
    }
}
