/// One answer of the CPUID instruction, in the terms of `struct kvm_cpuid_entry2`.
package struct CPUIDEntry: Hashable, Sendable {
    /// The function: eax on entry.
    package let leaf: UInt32
    /// The index: ecx on entry. Zero where `indexed` is false.
    package let subleaf: UInt32
    /// The leaf's answer depends on the subleaf.
    package let indexed: Bool
    /// The answer's first register.
    package var eax: UInt32
    /// The answer's second register.
    package var ebx: UInt32
    /// The answer's third register.
    package var ecx: UInt32
    /// The answer's fourth register.
    package var edx: UInt32

    /// An answer, all zero unless said otherwise.
    package init(
        leaf: UInt32, subleaf: UInt32? = nil, _ answer: Answer = Answer()
    ) {
        self.leaf = leaf
        self.subleaf = subleaf ?? 0
        indexed = subleaf != nil
        eax = answer.eax
        ebx = answer.ebx
        ecx = answer.ecx
        edx = answer.edx
    }

    /// The four registers of an answer.
    package struct Answer: Hashable, Sendable {
        /// The first register.
        package let eax: UInt32
        /// The second register.
        package let ebx: UInt32
        /// The third register.
        package let ecx: UInt32
        /// The fourth register.
        package let edx: UInt32

        /// Registers that are zero unless said otherwise.
        package init(eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0, edx: UInt32 = 0) {
            self.eax = eax
            self.ebx = ebx
            self.ecx = ecx
            self.edx = edx
        }
    }
}
