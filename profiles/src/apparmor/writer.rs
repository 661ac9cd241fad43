//! Writes blobs as no parser does, for tests.
//!
//! Invariant: each element is as the kernel reads it. Whether it should be there is up to the test.

/// A blob that is being written.
#[derive(Clone, Default)]
pub(super) struct Writer {
    pub(super) blob: Vec<u8>,
}

impl Writer {
    pub(super) fn raw(mut self, kind: u8, value: &[u8]) -> Self {
        self.blob.push(kind);
        self.blob.extend(value);
        self
    }

    pub(super) fn u8(self, value: u8) -> Self {
        self.raw(0, &[value])
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.raw(1, &value.to_le_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.raw(2, &value.to_le_bytes())
    }

    pub(super) fn u32s(self, count: usize) -> Self {
        (0..count).fold(self, |writer, _| writer.u32(0))
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.raw(3, &value.to_le_bytes())
    }

    fn short(self, kind: u8, text: &str) -> Self {
        let length = u16::try_from(text.len() + 1).unwrap().to_le_bytes();
        self.raw(kind, &[length.as_slice(), text.as_bytes(), b"\0"].concat())
    }

    pub(super) fn name(self, name: &str) -> Self {
        self.short(4, name)
    }

    pub(super) fn named_u32(self, name: &str, value: u32) -> Self {
        self.name(name).u32(value)
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.short(5, text)
    }

    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        self.raw(6, &[length.as_slice(), bytes].concat())
    }

    pub(super) fn open(self) -> Self {
        self.raw(7, &[])
    }

    pub(super) fn close(self) -> Self {
        self.raw(8, &[])
    }

    /// Without its last byte, which ended a struct.
    pub(super) fn unclosed(mut self) -> Self {
        self.blob.pop();
        self
    }

    pub(super) fn array(self, count: u16) -> Self {
        self.raw(11, &count.to_le_bytes())
    }

    pub(super) fn end_array(self) -> Self {
        self.raw(12, &[])
    }

    pub(super) fn header(self, version: u32, namespace: Option<&str>) -> Self {
        let writer = self.named_u32("version", version);
        match namespace {
            Some(namespace) => writer.name("namespace").text(namespace),
            None => writer,
        }
    }

    pub(super) fn flags(self, flags: u32, mode: u32) -> Self {
        self.name("flags").open().u32(flags).u32(mode).u32(0).close()
    }

    /// The least that is a profile, and its header.
    pub(super) fn profile(self, name: &str, mode: u32) -> Self {
        self.header(7, None).name("profile").open().text(name).flags(0, mode).u32s(4).close()
    }

    pub(super) fn permissions(self, count: usize) -> Self {
        let writer = self.name("perms").open().named_u32("version", 1).array(count.try_into().unwrap());
        writer.u32s(14 * count).end_array().close()
    }

    /// `table`, after what makes it begin at a multiple of 8 bytes.
    pub(super) fn padded(self, table: &[u8]) -> Self {
        let fill = (self.blob.len() + 5).next_multiple_of(8) - self.blob.len() - 5;
        self.bytes(&[&vec![0; fill], table].concat())
    }

    /// A table of states with permissions and numbers, perhaps.
    pub(super) fn rules(self, permissions: Option<&[u32]>, numbers: &[(&str, u32)]) -> Self {
        let writer = match permissions {
            Some(permissions) => self.permissions(permissions.len()).named_u32("permsv", 2),
            None => self,
        };
        let writer = writer.name("aadfa").padded(&table(&[0, 0], &[0, 0]));
        numbers.iter().fold(writer, |writer, (name, number)| writer.named_u32(name, *number))
    }
}

/// A table of as many states as there are `bases` and `defaults`. It has 256 transitions, to nowhere.
pub(super) fn table(bases: &[u32], defaults: &[u16]) -> Vec<u8> {
    let mut table = b"\x1b\x5e\x78\x3d\0\0\0\x10\0\0\0\0\0\x01x\0".to_vec();
    let mut column = |id: u8, width: u8, numbers: Vec<u8>| {
        let count = u32::try_from(numbers.len() / usize::from(width)).unwrap();
        table.extend([0, id, 0, width, 0, 0, 0, 0]);
        table.extend(count.to_be_bytes());
        table.extend(numbers);
        table.resize(table.len().next_multiple_of(8), 0);
    };
    column(1, 4, vec![0; 4 * bases.len()]);
    column(2, 4, bases.iter().flat_map(|base| base.to_be_bytes()).collect());
    column(4, 2, defaults.iter().flat_map(|state| state.to_be_bytes()).collect());
    column(3, 2, vec![0; 512]);
    column(8, 2, vec![0; 512]);
    column(5, 1, vec![0; 256]);
    table
}
