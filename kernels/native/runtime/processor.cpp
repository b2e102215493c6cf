// Asks the processor what it has, and the operating system which registers it saves.
//
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, CPUID and XGETBV.
#include "processor.h"

#include <cpuid.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

// One bit of a register that CPUID fills.
constexpr uint32_t bit(int place) { return uint32_t(1) << place; }

// Leaf 1, ECX.
constexpr uint32_t FMA = bit(12), OSXSAVE = bit(27), F16C = bit(29);
// Leaf 7, subleaf 0, EBX.
constexpr uint32_t AVX2 = bit(5);
constexpr uint32_t AVX512F = bit(16), AVX512DQ = bit(17), AVX512BW = bit(30), AVX512VL = bit(31);
// Leaf 7, subleaf 0, ECX.
constexpr uint32_t AVX512_VNNI = bit(11);
// Leaf 7, subleaf 0, EDX.
constexpr uint32_t AMX_BF16 = bit(22), AMX_TILE = bit(24), AMX_INT8 = bit(25);
// Leaf 7, subleaf 1, EAX.
constexpr uint32_t AVX_VNNI = bit(4), AVX512_BF16 = bit(5);
// XCR0, the registers that the operating system saves: SSE's and AVX's; with AVX-512 the mask
// registers, the upper halves of the first sixteen, and the other sixteen too.
constexpr uint32_t AVX_STATE = bit(1) | bit(2);
constexpr uint32_t AVX512_STATE = AVX_STATE | bit(5) | bit(6) | bit(7);

constexpr uint32_t AMX_STATE = bit(17) | bit(18);

// Linux lets a process use the tiles' 8 KiB of registers once it has asked.
// Source: Linux, Documentation/arch/x86/xstate.rst.
bool may_use_tiles() {
  constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

constexpr bool has_all(uint32_t found, uint32_t wanted) { return (found & wanted) == wanted; }

uint32_t saved_registers() {
  uint32_t low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

InstructionSet detected() {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return InstructionSet::NONE;
  // Without OSXSAVE there is no XGETBV to ask with.
  if (!has_all(ecx, OSXSAVE | FMA | F16C)) return InstructionSet::NONE;
  const uint32_t saved = saved_registers();
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return InstructionSet::NONE;
  if (!has_all(saved, AVX_STATE) || !has_all(ebx, AVX2)) return InstructionSet::NONE;
  const bool has_512 = has_all(ebx, AVX512F | AVX512DQ | AVX512BW | AVX512VL);
  if (has_all(saved, AVX512_STATE) && has_512 && has_all(ecx, AVX512_VNNI)) {
    const bool has_tiles = has_all(edx, AMX_BF16 | AMX_TILE | AMX_INT8) &&
                           __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) &&
                           has_all(eax, AVX512_BF16);
    const bool is_saved = has_all(saved, AMX_STATE);
    return has_tiles && is_saved && may_use_tiles() ? InstructionSet::AMX : InstructionSet::AVX512;
  }
  if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && has_all(eax, AVX_VNNI))
    return InstructionSet::AVXVNNI;
  return InstructionSet::AVX2;
}

InstructionSet most_allowed = InstructionSet::AMX;

}  // namespace

InstructionSet instruction_set() {
  static const InstructionSet found = detected();
  return found < most_allowed ? found : most_allowed;
}

void allow(InstructionSet most) { most_allowed = most; }
