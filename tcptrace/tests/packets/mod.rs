//! A strict reader of pcapng files (draft-ietf-opsawg-pcapng). It panics on everything unexpected.

/// A packet with fields of its TCP header and its block options.
pub struct Packet {
    pub wall_ns: u64,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// 1 inbound, 2 outbound.
    pub direction: u32,
    pub comment: String,
}

pub fn read(mut file: &[u8]) -> Vec<Packet> {
    let mut packets = vec![];
    let mut interfaces = 0;
    let mut blocks = 0;
    while !file.is_empty() {
        let length = u32_at(file, 4) as usize;
        assert!(length.is_multiple_of(4) && length >= 12 && length <= file.len());
        assert_eq!(
            u32_at(file, length - 4) as usize,
            length,
            "the trailing length"
        );
        let body = &file[8..length - 4];
        match u32_at(file, 0) {
            0x0a0d_0d0a => {
                assert_eq!(blocks, 0, "one section, at the beginning");
                assert_eq!(u32_at(body, 0), 0x1a2b_3c4d);
                assert_eq!(u32_at(body, 4), 1, "version 1.0");
                let options = options(&body[16..]);
                let application = options.iter().find(|(code, _)| *code == 4).unwrap();
                assert!(application.1.starts_with(b"tcptrace "));
            }
            1 => {
                assert_eq!(u32_at(body, 0), 101, "raw IP");
                let options = options(&body[8..]);
                assert!(options.contains(&(9, &[9])), "nanoseconds");
                interfaces += 1;
            }
            6 => {
                assert!(u32_at(body, 0) < interfaces);
                packets.push(packet(body));
            }
            kind => panic!("block {kind:#x}"),
        }
        blocks += 1;
        file = &file[length..];
    }
    packets
}

fn packet(body: &[u8]) -> Packet {
    let wall_ns = u64::from(u32_at(body, 4)) << 32 | u64::from(u32_at(body, 8));
    let (captured, original) = (u32_at(body, 12) as usize, u32_at(body, 16) as usize);
    assert!(captured <= original);
    let ip = &body[20..20 + captured];
    let options = options(&body[20 + captured.next_multiple_of(4)..]);
    assert_eq!(ip[0], 0x45, "IPv4 without options");
    assert_eq!(ip[9], 6, "TCP");
    assert_eq!(u16_be(ip, 2) as usize, original);
    assert_eq!(sum(&ip[..20]), 0xffff, "the IP header's checksum");
    let tcp = &ip[20..];
    assert_eq!(tcp.len(), 20, "TCP without options");
    assert_eq!(tcp[12] >> 4, 5);
    if captured == original {
        // The pseudo header has the addresses, the protocol and the length.
        let mut checked = ip[12..20].to_vec();
        checked.extend([0, 6, 0, tcp.len() as u8]);
        checked.extend(tcp);
        assert_eq!(sum(&checked), 0xffff, "the TCP checksum");
    } else {
        assert_eq!(u16_be(tcp, 16), 0, "the payload was not recorded");
    }
    let option = |code| options.iter().find(|it| it.0 == code).map(|it| it.1);
    let comment = option(1).unwrap_or_default().to_vec();
    Packet {
        wall_ns,
        seq: u32::from_be_bytes(tcp[4..8].try_into().unwrap()),
        ack: u32::from_be_bytes(tcp[8..12].try_into().unwrap()),
        flags: tcp[13],
        direction: u32_at(option(2).unwrap(), 0),
        comment: String::from_utf8(comment).unwrap(),
    }
}

fn options(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut options = vec![];
    loop {
        let code = u16::from_le_bytes([bytes[0], bytes[1]]);
        let length = u16::from_le_bytes([bytes[2], bytes[3]]) as usize;
        if code == 0 {
            assert_eq!((length, bytes.len()), (0, 4), "no bytes after the end");
            return options;
        }
        options.push((code, &bytes[4..4 + length]));
        bytes = &bytes[4 + length.next_multiple_of(4)..];
    }
}

/// Returns the sum of the Internet checksum (RFC 1071). All ones mean that the checksum is correct.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|it| u32::from(u16_be(it, 0)));
    let sum: u32 = words.sum();
    (sum & 0xffff) + (sum >> 16)
}

fn u16_be(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}
