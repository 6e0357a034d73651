// Dense layer for few rows, at the speed at which the weights are read.
//
//   y[n, o] = activation(bias[o] + sum over k of x[n, k] * weight[o, k])
//
// A warp computes one o for `faces` n: its lanes read 16 bytes of the weights at a time, side by
// side, and add their shares in one fixed order.

namespace ferplus {

struct Dense {
  int batch, in_features, out_features, outputs;
  bool relu, bounded;
  int warps, faces;  // warps in a block
};

template <Dense D, Store S, typename T, typename Weight>
__device__ __forceinline__ void dense(const T* x, const Weight* weight, const float* bias,
                                      typename Stored<S>::Type* y, float slope) {
  constexpr int kVector = 16 / sizeof(Weight), kVectors = D.in_features / kVector;
  static_assert(D.in_features % kVector == 0);
  constexpr int kAcross = ceil_div(D.outputs, D.warps);
  const int lane = threadIdx.x % 32, output = blockIdx.x % kAcross * D.warps + threadIdx.x / 32;
  const int first = blockIdx.x / kAcross * D.faces;
  if (output >= D.outputs) return;  // a whole warp
  float sums[D.faces] = {};
#pragma unroll(D.faces > 2 ? 2 : 8)
  for (int k = lane; k < kVectors; k += 32) {
    const auto factors = load<Weight, kVector>(weight + (output * kVectors + k) * kVector);
#pragma unroll
    for (int n = 0; n < D.faces; ++n) {
      // Past the last face the last one is computed again, and dropped.
      const int face = first + n < D.batch ? first + n : D.batch - 1;
#pragma unroll
      for (int at = 0; at < kVector; at += 4) {
        const auto values = load<T, 4>(x + face * D.in_features + k * kVector + at);
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sums[n] = fmaf(to_float(values.values[i]), to_float(factors.values[at + i]), sums[n]);
      }
    }
  }
#pragma unroll
  for (int n = 0; n < D.faces; ++n) {
    const Bounds<D.bounded> bounds(bias, D.out_features, output);
    float total = warp_sum(sums[n]) + bias[output];
    total = bounds.clip(rectified<D.relu>(total, slope));
    if (lane == n && first + n < D.batch)
      y[(first + n) * D.outputs + output] = stored<S>(total);
  }
}

}  // namespace ferplus
