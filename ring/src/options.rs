//! What a worker's ring is built with. Decides only whether the numbers make sense together; they come from
//! `core::limits` by way of whoever starts the worker.

use std::io;

/// Sizes of one worker's ring and of its receive buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// Size of one receive buffer, in bytes.
    pub recv_buffer_bytes: usize,
    /// Receive buffers of the worker; a power of two, at most 32,768.
    pub recv_buffers: u16,
    /// Credit of a connection: how many received chunks it may have outstanding, unread or held by its reader,
    /// before the kernel is told to stop delivering.
    pub lent_chunks_max: u8,
    /// Entries of the submission queue; the completion queue has four times as many.
    pub entries: u32,
}

impl RingOptions {
    /// Bytes of receive memory of one worker.
    pub const fn buffer_bytes(&self) -> usize {
        self.recv_buffer_bytes.saturating_mul(self.recv_buffers as usize)
    }

    /// Refuses numbers that no ring can be built with.
    pub(crate) fn check(&self) -> io::Result<()> {
        let refuse = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if !self.recv_buffers.is_power_of_two() || self.recv_buffers > 1 << 15 {
            return refuse("recv_buffers must be a power of two of at most 32768");
        }
        if self.recv_buffer_bytes == 0 || self.recv_buffer_bytes > 1 << 24 {
            return refuse("recv_buffer_bytes must be between 1 byte and 16 MiB");
        }
        if self.lent_chunks_max == 0 {
            return refuse("lent_chunks_max must be at least 1");
        }
        if self.entries == 0 || self.entries > 1 << 15 {
            return refuse("entries must be between 1 and 32768");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_no_ring_can_have() {
        let good =
            RingOptions { recv_buffer_bytes: 4096, recv_buffers: 256, lent_chunks_max: 4, entries: 256 };
        assert!(good.check().is_ok());
        assert_eq!(good.buffer_bytes(), 1 << 20);
        for bad in [
            RingOptions { recv_buffers: 0, ..good },
            RingOptions { recv_buffers: 200, ..good },
            RingOptions { recv_buffer_bytes: 0, ..good },
            RingOptions { recv_buffer_bytes: 1 << 25, ..good },
            RingOptions { lent_chunks_max: 0, ..good },
            RingOptions { entries: 0, ..good },
            RingOptions { entries: 1 << 16, ..good },
        ] {
            assert_eq!(bad.check().map_err(|e| e.kind()), Err(io::ErrorKind::InvalidInput), "{bad:?}");
        }
    }
}
