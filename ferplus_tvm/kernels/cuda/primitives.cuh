// The instructions that C++ has no words for.  PTX ISA: "cp.async", "mma.sync", "cvt.rna.tf32".

#include <cuda_fp16.h>

namespace ferplus {

// Starts copying 16 bytes from global to shared memory, or 16 zeros; both addresses are aligned.
__device__ __forceinline__ void copy16(void* shared, const void* global, bool valid) {
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}

// Closes the group of the copies that this thread has started.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all groups of this thread but the last `Pending` are there.
template <int Pending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// Adds a 16 x 8-word fragment times an 8-word x 8 one: `upper` are this thread's sums of rows 0..7,
// `lower` of 8..15.  A word is a TF32 number (T = float) or two halves.
template <typename T>
__device__ __forceinline__ void multiply_fragments(float (&upper)[2], float (&lower)[2],
                                                   const unsigned (&a)[4], const unsigned (&b)[2]);

template <>
__device__ __forceinline__ void multiply_fragments<float>(float (&upper)[2], float (&lower)[2],
                                                          const unsigned (&a)[4],
                                                          const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(upper[0]), "+f"(upper[1]), "+f"(lower[0]), "+f"(lower[1])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <>
__device__ __forceinline__ void multiply_fragments<half>(float (&upper)[2], float (&lower)[2],
                                                         const unsigned (&a)[4],
                                                         const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(upper[0]), "+f"(upper[1]), "+f"(lower[0]), "+f"(lower[1])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Returns the nearest number with TF32's ten bits of fraction.
__device__ __forceinline__ float to_tf32(float value) {
  unsigned rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(value));
  return __uint_as_float(rounded);
}

// Returns the sum of all lanes' values, the same in every lane.
__device__ __forceinline__ float warp_sum(float value) {
  for (int distance = 16; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

}  // namespace ferplus
