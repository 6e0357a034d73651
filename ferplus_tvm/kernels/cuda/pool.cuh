// Pooling of maps (N, H, W, C): the maximum of a window, what is outside of the map ignored, or its
// average, summed in float32; a thread for each output.

namespace ferplus {

struct Pool {
  int batch, height, width, channels;
  int kernel_y, kernel_x, stride_y, stride_x, top, left;
  int out_height, out_width;
  bool average;
};

template <Pool P, Store S>
__device__ __forceinline__ void pool(const typename Stored<S>::Type* x,
                                     typename Stored<S>::Type* y) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= P.batch * P.out_height * P.out_width * P.channels) return;
  const int channel = at % P.channels, out_x = at / P.channels % P.out_width;
  const int out_y = at / P.channels / P.out_width % P.out_height;
  const int n = at / P.channels / P.out_width / P.out_height;
  float result = 0;
  bool any = false;
  for (int ky = 0; ky < P.kernel_y; ++ky) {
    for (int kx = 0; kx < P.kernel_x; ++kx) {
      const int in_y = out_y * P.stride_y - P.top + ky, in_x = out_x * P.stride_x - P.left + kx;
      if (in_y < 0 || in_y >= P.height || in_x < 0 || in_x >= P.width) continue;
      const float value =
          to_float(x[((n * P.height + in_y) * P.width + in_x) * P.channels + channel]);
      if (P.average)
        result += value;
      else if (!any || value > result)
        result = value;
      any = true;
    }
  }
  y[at] = stored<S>(P.average ? result / (P.kernel_y * P.kernel_x) : result);
}

}  // namespace ferplus
