//! What the host allows this process: descriptors, memory, cores. Read once at start; limits of slots and body
//! memory follow from it, so that the worst case is known before the first connection.

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tidegate_core::limits;

/// Raises the limit of descriptors as far as it may go; returns what holds then.
fn descriptors() -> u64 {
    let held = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: held.maximum, maximum: held.maximum };
    // Where it cannot be raised, what there is decides.
    let _ = setrlimit(Resource::Nofile, wanted);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Client connections of the process: the limit, bounded by descriptors.
pub(crate) fn slots() -> usize {
    let free = descriptors().saturating_sub(limits::DESCRIPTORS_RESERVED as u64);
    let by_descriptors = usize::try_from(free / limits::DESCRIPTORS_PER_SLOT as u64).unwrap_or(usize::MAX);
    limits::SLOTS_MAX.min(by_descriptors).max(1)
}

/// Bytes that request bodies may hold together: a part of the memory that this process may use.
pub(crate) fn body_memory_bytes() -> u64 {
    let limit = [cgroup_limit_bytes(), total_memory_bytes()].into_iter().flatten().min();
    limit.map_or(limits::BODY_MEMORY_BYTES_FALLBACK, |bytes| bytes / limits::BODY_MEMORY_DIVISOR)
}

/// The memory limit of the control group this process is in, where there is one.
fn cgroup_limit_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let file = Path::new("/sys/fs/cgroup").join(own.trim_start_matches('/')).join("memory.max");
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The memory of the host.
fn total_memory_bytes() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Cores that this process may use.
pub(crate) fn parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A core for each of `workers`, where there are as many as cores that the process may use, and it may use them
/// whole: with fewer workers, or under a quota of processor time, the scheduler knows better.
pub(crate) fn cores_for(workers: usize) -> Option<Vec<usize>> {
    let allowed = sched_getaffinity(None).ok()?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    (workers > 1 && cores.len() == workers && parallelism() == workers).then_some(cores)
}

/// Keeps the calling thread on `core`. A host that does not allow it loses nothing but a little speed.
pub(crate) fn pin(core: usize) {
    let mut only = CpuSet::new();
    only.set(core);
    let _ = sched_setaffinity(None, &only);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_answers() {
        assert!((1..=limits::SLOTS_MAX).contains(&slots()));
        assert!(body_memory_bytes() > limits::BODY_BYTES_MAX as u64);
        assert!(parallelism() >= 1);
    }

    #[test]
    fn workers_get_a_core_each_only_where_that_is_all_there_is() {
        let all = parallelism();
        assert_eq!(cores_for(all + 1), None);
        assert_eq!(cores_for(1), None, "nothing to gain");
        if let Some(cores) = cores_for(all) {
            assert_eq!(cores.len(), all);
            let of_a_pinned_thread = std::thread::spawn(move || {
                pin(cores[0]);
                (sched_getaffinity(None).expect("a mask").count(), cores[0])
            });
            assert_eq!(of_a_pinned_thread.join().expect("no panic").0, 1);
            assert!(
                sched_getaffinity(None).expect("a mask").count() as usize >= all,
                "other threads are free"
            );
        }
    }
}
