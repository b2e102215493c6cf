// What the processor, and the operating system's saving of its registers, allow.
#pragma once
#include <cpuid.h>
#include <stdint.h>

enum class InstructionSet { NONE, AVX2, AVXVNNI, AVX512 };

// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, CPUID and XGETBV.
inline InstructionSet instruction_set() {
  const auto has = [](uint32_t bits, int place) { return (bits >> place & 1) != 0; };
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return InstructionSet::NONE;
  const bool is_saved = has(ecx, 27), has_fma = has(ecx, 12), has_half = has(ecx, 29);
  if (!is_saved || !has_fma || !has_half) return InstructionSet::NONE;
  uint32_t saved = 0, high = 0;
  __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return InstructionSet::NONE;
  constexpr uint32_t AVX_STATE = 0x06, AVX512_STATE = 0xe6;
  if ((saved & AVX_STATE) != AVX_STATE || !has(ebx, 5)) return InstructionSet::NONE;
  const bool has_512 = has(ebx, 16) && has(ebx, 17) && has(ebx, 30) && has(ebx, 31);
  const bool has_vnni = has(ecx, 11);
  if ((saved & AVX512_STATE) == AVX512_STATE && has_512 && has_vnni) return InstructionSet::AVX512;
  if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && has(eax, 4)) return InstructionSet::AVXVNNI;
  return InstructionSet::AVX2;
}
