// What the CPU can run; the operations are in */cpu.cpp, compiled once for each instruction set.

// Bits: 1 AVX2 and FMA, 2 AVX-512 (F, BW, DQ, VL), 4 AVX-512 BF16.
extern "C" __attribute__((visibility("default"))) int csm_instruction_sets() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx2 + 2 * avx512 + 4 * (avx512 && __builtin_cpu_supports("avx512bf16"));
#else
  return 0;
#endif
}
