//! Which shard of the routes a request's host belongs to.
//!
//! The control plane splits the hosts over N scoped route configurations and computes the same number in Python:
//!
//! ```python
//! zlib.crc32(host.lower().encode()) % shards
//! ```
//!
//! where `host` is the `:authority` without its port: `Chat.Example.COM:8443` is `chat.example.com`, `[::1]:80` is
//! `[::1]`. A trailing dot stays. The value is always set, so a client cannot choose its shard.

/// The header that a scoped-routes key builder reads. Routes remove it from what goes upstream: the module cannot,
/// because a later filter may clear the route cache and Envoy then selects the scope again.
pub const SHARD_HEADER: &str = "x-gwanmun-shard";

/// The shard of `authority`, in `0..shards`.
///
/// # Panics
/// If `shards` is 0.
#[must_use]
pub fn shard_of(authority: &[u8], shards: u32) -> u32 {
    let hash = without_port(authority)
        .iter()
        .fold(!0u32, |crc, byte| TABLE[((crc ^ u32::from(byte.to_ascii_lowercase())) & 0xff) as usize] ^ (crc >> 8));
    !hash % shards
}

fn without_port(authority: &[u8]) -> &[u8] {
    if authority.first() == Some(&b'[') {
        let end = authority.iter().position(|byte| *byte == b']').map_or(authority.len(), |at| at + 1);
        return &authority[..end];
    }
    let end = authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len());
    &authority[..end]
}

/// CRC-32 as in zlib: the polynomial 0x04c11db7, bits reflected.
const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::shard_of;

    #[test]
    fn the_hash_is_zlibs_crc32() {
        // The check value of CRC-32, and zlib.crc32(b"chat.example.com").
        assert_eq!(shard_of(b"123456789", u32::MAX), 0xcbf4_3926);
        assert_eq!(shard_of(b"chat.example.com", u32::MAX), 0x3667_74ba);
        assert_eq!(shard_of(b"", u32::MAX), 0);
    }

    #[test]
    fn case_and_port_do_not_matter() {
        let plain = shard_of(b"chat.example.com", 97);
        assert_eq!(shard_of(b"Chat.Example.COM:8443", 97), plain);
        assert_eq!(shard_of(b"[::1]:80", 97), shard_of(b"[::1]", 97));
        assert_ne!(shard_of(b"[::1]", u32::MAX), shard_of(b"[::2]", u32::MAX));
    }

    #[test]
    fn hosts_spread() {
        let mut counts = [0u32; 16];
        for number in 0..1600 {
            counts[shard_of(format!("model-{number}.example.com").as_bytes(), 16) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (50..=150).contains(count)), "{counts:?}");
    }
}
