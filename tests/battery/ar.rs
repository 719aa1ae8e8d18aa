//! Archives, written byte by byte.

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).expect("a small number")
}

/// An archive in GNU's format: with a symbol index of `index` (name and member), or without.
pub(crate) fn archive(members: &[(&str, Vec<u8>)], index: Option<&[(&str, usize)]>) -> Vec<u8> {
    let member = |name: &str, data: &[u8]| {
        let mut bytes = format!(
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            0,
            644,
            data.len()
        )
        .into_bytes();
        bytes.extend_from_slice(data);
        if data.len() % 2 == 1 {
            bytes.push(b'\n');
        }
        bytes
    };
    let bodies: Vec<Vec<u8>> = members
        .iter()
        .map(|(name, data)| member(&format!("{name}/"), data))
        .collect();
    let mut all = b"!<arch>\n".to_vec();
    if let Some(index) = index {
        let names: Vec<u8> = index
            .iter()
            .flat_map(|(n, _)| [n.as_bytes(), b"\0"].concat())
            .collect();
        let len = (4 + 4 * index.len() + names.len()).next_multiple_of(2);
        let first = all.len() + 60 + len;
        let mut data = to_u32(index.len()).to_be_bytes().to_vec();
        for (_, which) in index {
            let before: usize = bodies[..*which].iter().map(Vec::len).sum();
            data.extend(to_u32(first + before).to_be_bytes());
        }
        data.extend(names);
        data.resize(len, 0);
        all.extend(member("/", &data));
    }
    all.extend(bodies.concat());
    all
}
