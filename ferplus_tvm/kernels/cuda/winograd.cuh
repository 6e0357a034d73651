// Winograd's convolution F(m x m, 3x3) of stride 1: the way in and the way back of its tiles.
//
//   v[e, t, ci] = (B^T d B)[e] for the (m+2) x (m+2) inputs d of tile t, zero outside of the map
//   m[e, t, o] = sum over ci of v[e, t, ci] * u[e, o, ci]: `conv2d` with (m+2)^2 GEMMs
//   y = activation(bias + A^T m A) for the m x m outputs of a tile, which may be pooled by 2x2
//
// A thread has one channel of a tile in its registers, so that each access of a warp is to adjacent
// channels.  The matrices are generated: kernels/winograd_matrices.py has their source.

namespace ferplus {

template <Conv2d C, int Tile>
struct Tiles {
  static constexpr int kSide = Tile + 2;
  static constexpr int kHigh = ceil_div(C.out_height, Tile), kWide = ceil_div(C.out_width, Tile);
  static constexpr int kCount = C.batch * kHigh * kWide;

  // Returns the image of a tile, and its row and column among the image's tiles.
  static __device__ __forceinline__ Pixel place(int tile) {
    return {tile / (kHigh * kWide), tile / kWide % kHigh, tile % kWide};
  }
};

template <Conv2d C, int Tile>
__device__ __forceinline__ void winograd_input(const float* x, float* v) {
  using T = Tiles<C, Tile>;
  constexpr int kSide = T::kSide;
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  const int channel = at % C.in_channels, tile = at / C.in_channels;
  if (tile >= T::kCount) return;
  const Pixel place = T::place(tile);
  const int first_y = place.y * Tile - C.top, first_x = place.x * Tile - C.left;
  float down[kSide][kSide];  // B^T d
#pragma unroll
  for (int j = 0; j < kSide; ++j) {
    float inputs[kSide];
#pragma unroll
    for (int k = 0; k < kSide; ++k) {
      const int in_y = first_y + k, in_x = first_x + j;
      const bool inside = in_y >= 0 && in_y < C.height && in_x >= 0 && in_x < C.width;
      const float* from = x + ((place.n * C.height + in_y) * C.width + in_x) * C.in_channels;
      inputs[k] = inside ? from[channel] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      down[i][j] = 0;
#pragma unroll
      for (int k = 0; k < kSide; ++k)
        if (const float factor = Matrices<Tile>::input(i, k); factor != 0)
          down[i][j] = fmaf(factor, inputs[k], down[i][j]);
    }
  }
#pragma unroll
  for (int i = 0; i < kSide; ++i) {
#pragma unroll
    for (int j = 0; j < kSide; ++j) {
      float sum = 0;
#pragma unroll
      for (int k = 0; k < kSide; ++k)
        if (const float factor = Matrices<Tile>::input(j, k); factor != 0)
          sum = fmaf(factor, down[i][k], sum);
      v[((i * kSide + j) * T::kCount + tile) * C.in_channels + channel] = sum;
    }
  }
}

template <Conv2d C, int Tile>
__device__ __forceinline__ void winograd_output(const float* m, const float* bias, float* y,
                                                float slope) {
  using T = Tiles<C, Tile>;
  constexpr int kSide = T::kSide, kShrink = C.pool ? 2 : 1, kStep = Tile / kShrink;
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  const int channel = at % C.out_channels, tile = at / C.out_channels;
  if (tile >= T::kCount) return;
  float down[Tile][kSide] = {};  // A^T m
#pragma unroll
  for (int k = 0; k < kSide; ++k) {
#pragma unroll
    for (int j = 0; j < kSide; ++j) {
      const float product = m[((k * kSide + j) * T::kCount + tile) * C.out_channels + channel];
#pragma unroll
      for (int i = 0; i < Tile; ++i)
        if (const float factor = Matrices<Tile>::output(i, k); factor != 0)
          down[i][j] = fmaf(factor, product, down[i][j]);
    }
  }
  float outputs[kStep][kStep];
#pragma unroll
  for (int i = 0; i < Tile; ++i) {
#pragma unroll
    for (int j = 0; j < Tile; ++j) {
      float sum = 0;
#pragma unroll
      for (int k = 0; k < kSide; ++k)
        if (const float factor = Matrices<Tile>::output(j, k); factor != 0)
          sum = fmaf(factor, down[i][k], sum);
      float& output = outputs[i / kShrink][j / kShrink];
      output = i % kShrink || j % kShrink ? fmaxf(output, sum) : sum;
    }
  }
  constexpr int kHeight = C.out_height / kShrink, kWidth = C.out_width / kShrink;
  const Pixel place = T::place(tile);
  const float shift = bias[channel];
  const Bounds<C.bounded> bounds(bias, C.out_channels, channel);
#pragma unroll
  for (int i = 0; i < kStep; ++i) {
#pragma unroll
    for (int j = 0; j < kStep; ++j) {
      const int out_y = place.y * kStep + i, out_x = place.x * kStep + j;
      if (out_y >= kHeight || out_x >= kWidth) continue;
      const float sum = outputs[i][j] + shift;
      y[((place.n * kHeight + out_y) * kWidth + out_x) * C.out_channels + channel] =
          bounds.clip(rectified<C.relu>(sum, slope));
    }
  }
}

}  // namespace ferplus
