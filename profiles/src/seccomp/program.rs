//! Runs a filter's program, as the kernel would.
//!
//! From Documentation/networking/filter.rst and kernel/seccomp.c: only the instructions that libseccomp
//! makes.

/// A program for the kernel's seccomp.
#[derive(Clone, Debug)]
pub(crate) struct Program(Vec<Instruction>);

/// An instruction: `struct sock_filter` of the kernel (include/uapi/linux/filter.h).
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    constant: u32,
}

/// A system call, as a program sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) number: u32,
    /// The kernel's `AUDIT_ARCH_*`.
    pub(crate) architecture: u32,
    pub(crate) arguments: [u64; 6],
    pub(crate) is_big_endian: bool,
}

impl Program {
    /// Reads what libseccomp wrote: 8 bytes for each instruction, in this machine's order.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let instruction = |bytes: &[u8; 8]| {
            let [code_0, code_1, jump_true, jump_false, constant @ ..] = *bytes;
            Instruction {
                code: u16::from_ne_bytes([code_0, code_1]),
                jump_true,
                jump_false,
                constant: u32::from_ne_bytes(constant),
            }
        };
        Self(bytes.as_chunks().0.iter().map(instruction).collect())
    }

    /// How many instructions it has.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What it returns for `call`, and after how many instructions; none if it is no program that libseccomp
    /// makes.
    pub(crate) fn run(&self, call: &Call) -> Option<(u32, usize)> {
        let (mut at, mut accumulator, mut steps) = (0_usize, 0_u32, 0);
        // Jumps go forward only, so it ends.
        loop {
            let Instruction { code, jump_true, jump_false, constant } = *self.0.get(at)?;
            steps += 1;
            at += 1;
            let mut jump_if = |holds: bool| at += usize::from(if holds { jump_true } else { jump_false });
            match code {
                0x06 => return Some((constant, steps)),
                0x20 => accumulator = call.word(constant)?,
                0x54 => accumulator &= constant,
                0x05 => at += usize::try_from(constant).ok()?,
                0x15 => jump_if(accumulator == constant),
                0x25 => jump_if(accumulator > constant),
                0x35 => jump_if(accumulator >= constant),
                0x45 => jump_if(accumulator & constant != 0),
                _ => return None,
            }
        }
    }

    /// The program as the kernel takes it.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let bytes = |one: &Instruction| {
            let (code, constant) = (one.code.to_ne_bytes(), one.constant.to_ne_bytes());
            [code.as_slice(), &[one.jump_true, one.jump_false], constant.as_slice()].concat()
        };
        self.0.iter().flat_map(bytes).collect()
    }
}

impl Call {
    /// The word at this offset of `struct seccomp_data` (include/uapi/linux/seccomp.h).
    fn word(&self, offset: u32) -> Option<u32> {
        const ARGUMENTS: u32 = 16;
        match offset {
            0 => Some(self.number),
            4 => Some(self.architecture),
            _ => {
                let offset = offset.checked_sub(ARGUMENTS)?;
                let argument = *self.arguments.get(usize::try_from(offset / 8).ok()?)?;
                let is_first = offset % 8 == 0;
                let half =
                    if is_first == self.is_big_endian { argument >> 32 } else { argument & 0xffff_ffff };
                u32::try_from(half).ok()
            }
        }
    }
}
