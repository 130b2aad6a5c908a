//! Resource limits, `getrlimit(2)`.

/// A limited resource, by its number in the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Resource {
    Cpu = 0,
    Fsize = 1,
    Data = 2,
    Stack = 3,
    Core = 4,
    Rss = 5,
    Nproc = 6,
    Nofile = 7,
    Memlock = 8,
    As = 9,
    Locks = 10,
    Sigpending = 11,
    Msgqueue = 12,
    Nice = 13,
    Rtprio = 14,
    Rttime = 15,
}

impl Resource {
    pub const COUNT: usize = 16;

    pub fn from_raw(raw: u32) -> Option<Resource> {
        use Resource::*;
        const ALL: [Resource; Resource::COUNT] = [
            Cpu, Fsize, Data, Stack, Core, Rss, Nproc, Nofile, Memlock, As, Locks, Sigpending, Msgqueue,
            Nice, Rtprio, Rttime,
        ];
        ALL.get(raw as usize).copied()
    }
}

/// `/proc/sys/fs/nr_open`: what RLIMIT_NOFILE may be raised to.
pub const NR_OPEN: u64 = 1 << 20;

/// RLIM_INFINITY.
pub const INFINITY: u64 = u64::MAX;

/// A soft and a hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    pub soft: u64,
    pub hard: u64,
}

/// All limits of a process.
#[derive(Clone, Copy, Debug)]
pub struct Rlimits(pub [Rlimit; Resource::COUNT]);

impl Rlimits {
    pub fn get(&self, resource: Resource) -> Rlimit {
        self.0[resource as usize]
    }
    pub fn set(&mut self, resource: Resource, limit: Rlimit) {
        self.0[resource as usize] = limit;
    }
}

impl Default for Rlimits {
    /// What a container gets whose spec says nothing: Linux's boot defaults.
    fn default() -> Rlimits {
        let mut all = Rlimits([Rlimit { soft: INFINITY, hard: INFINITY }; Resource::COUNT]);
        all.set(Resource::Stack, Rlimit { soft: 8 << 20, hard: INFINITY });
        all.set(Resource::Core, Rlimit { soft: 0, hard: INFINITY });
        all.set(Resource::Nofile, Rlimit { soft: 1024, hard: 1 << 20 });
        all.set(Resource::Memlock, Rlimit { soft: 8 << 20, hard: 8 << 20 });
        all.set(Resource::Msgqueue, Rlimit { soft: 819_200, hard: 819_200 });
        all.set(Resource::Nice, Rlimit { soft: 0, hard: 0 });
        all.set(Resource::Rtprio, Rlimit { soft: 0, hard: 0 });
        all
    }
}
