// Which instruction sets the processor has, and which of them the kernels use.
#pragma once

// In the order of preference: each has what the ones before it have.
enum class InstructionSet { NONE, AVX2, AVXVNNI, AVX512, AMX };

// The best that the processor has and `allow` permits.
InstructionSet instruction_set();

// Forbids better ones than `most`, so that tests can run the kernels of lesser processors.
void allow(InstructionSet most);

// The one in use of an operator's three tables of functions.
template <typename Kernel>
const Kernel& in_use(const Kernel& avx512, const Kernel& avxvnni, const Kernel& avx2) {
  switch (instruction_set()) {
    case InstructionSet::AMX:
    case InstructionSet::AVX512: return avx512;
    case InstructionSet::AVXVNNI: return avxvnni;
    default: return avx2;
  }
}

// The same of an operator that has a fourth one, for matrix tiles.
template <typename Kernel>
const Kernel& in_use(const Kernel& amx, const Kernel& avx512, const Kernel& avxvnni,
                     const Kernel& avx2) {
  return instruction_set() == InstructionSet::AMX ? amx : in_use(avx512, avxvnni, avx2);
}
