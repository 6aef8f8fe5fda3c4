/// How the guest's vCPUs share cores, dies and packages. All counts are 1 or more.
package struct CPUTopology: Hashable, Sendable {
    /// vCPUs on each core.
    package let threadsPerCore: UInt32
    /// Cores on each die.
    package let coresPerDie: UInt32
    /// Dies in each package.
    package let diesPerPackage: UInt32

    /// The APIC id's low bits that tell a package's threads apart are at most these, so that every
    /// count and id of a package fits its field; AMD's leaf 0x80000008 has 4 bits for the width.
    private static let maximumPackageShift: UInt32 = 15

    /// Nil when a count is zero, or when an APIC id would need more than 15 bits inside a package.
    package init?(threadsPerCore: UInt32, coresPerDie: UInt32, diesPerPackage: UInt32) {
        let counts = [threadsPerCore, coresPerDie, diesPerPackage]
        guard !counts.contains(0),
            counts.map(Self.width).reduce(0, +) <= Self.maximumPackageShift
        else { return nil }
        self.threadsPerCore = threadsPerCore
        self.coresPerDie = coresPerDie
        self.diesPerPackage = diesPerPackage
    }

    /// The topology of a guest that was given none: one package in which every one of the
    /// `vcpuCount` vCPUs (1 to 32768) is a core of its own.
    package init?(vcpuCount: UInt32) {
        self.init(threadsPerCore: 1, coresPerDie: vcpuCount, diesPerPackage: 1)
    }

    /// vCPUs in each package.
    package var threadsPerPackage: UInt32 { threadsPerDie * diesPerPackage }
    /// vCPUs on each die.
    package var threadsPerDie: UInt32 { threadsPerCore * coresPerDie }

    /// How many low bits of an APIC id tell the threads of a core apart.
    package var coreShift: UInt32 { Self.width(threadsPerCore) }
    /// How many low bits of an APIC id tell the threads of a die apart.
    package var dieShift: UInt32 { coreShift + Self.width(coresPerDie) }
    /// How many low bits of an APIC id tell the threads of a package apart.
    package var packageShift: UInt32 { dieShift + Self.width(diesPerPackage) }

    /// The x2APIC id of the vCPU with number `vcpu` (from 0): thread, core, die and package, each
    /// in a field as wide as its count needs (Intel SDM 3A, 9.9).
    package func apicID(vcpu: UInt32) -> UInt32 {
        let thread = vcpu % threadsPerCore
        let core = vcpu / threadsPerCore % coresPerDie
        let die = vcpu / threadsPerDie % diesPerPackage
        let package = vcpu / threadsPerPackage
        return package << packageShift | die << dieShift | core << coreShift | thread
    }

    /// The bits that hold the numbers 0 to `count` - 1.
    private static func width(_ count: UInt32) -> UInt32 {
        UInt32(UInt32.bitWidth - (count - 1).leadingZeroBitCount)
    }
}
