// How activations are stored: as float32, as TF32 (float32 whose last 13 bits are zero) or as float16.

using uint = unsigned int;  // TVM's name of it, which NVRTC does not know

namespace ferplus {

enum class Store { kFloat32, kTf32, kHalf };

template <Store S>
struct Stored {
  using Type = float;
};
template <>
struct Stored<Store::kHalf> {
  using Type = half;
};

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(half value) { return __half2float(value); }

template <Store S>
__device__ __forceinline__ typename Stored<S>::Type stored(float value) {
  if constexpr (S == Store::kHalf)
    // What is too large for a half becomes the largest one: infinity would make NaN of it later.
    return __float2half_rn(fminf(fmaxf(value, -65504.0f), 65504.0f));
  else if constexpr (S == Store::kTf32)
    return to_tf32(value);
  else
    return value;
}

template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T values[N];
};

// Stores N adjacent values at once; the address is a multiple of their size.
template <Store S, int N>
__device__ __forceinline__ void store(typename Stored<S>::Type* to, const float (&values)[N]) {
  using Type = typename Stored<S>::Type;
  Pack<Type, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.values[i] = stored<S>(values[i]);
  *reinterpret_cast<Pack<Type, N>*>(to) = pack;
}

template <typename T, int N>
__device__ __forceinline__ Pack<T, N> load(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}

// A ReLU, leaky where its slope is not 0, or nothing.
template <bool Relu>
__device__ __forceinline__ float rectified(float value, float slope) {
  if (!Relu) return value;
  if (slope == 0.0f) return fmaxf(value, 0.0f);
  return value > 0.0f ? value : slope * value;
}

// The bounds of N adjacent channels, or none: bias (3, channels) holds bias, lower and upper bound.
template <bool Bounded, int N = 1>
struct Bounds {
  __device__ __forceinline__ Bounds(const float* bias, int channels, int channel) {}
  __device__ __forceinline__ float clip(float value, int at = 0) const { return value; }
};
template <int N>
struct Bounds<true, N> {
  Pack<float, N> lower, upper;

  __device__ __forceinline__ Bounds(const float* bias, int channels, int channel)
      : lower(load<float, N>(bias + channels + channel)),
        upper(load<float, N>(bias + 2 * channels + channel)) {}
  __device__ __forceinline__ float clip(float value, int at = 0) const {
    return fminf(fmaxf(value, lower.values[at]), upper.values[at]);
  }
};

}  // namespace ferplus
