// Max pooling of maps (N, H, W, C), outside of them ignored; a thread for each output.

namespace ferplus {

struct MaxPool {
  int batch, height, width, channels;
  int kernel_y, kernel_x, stride_y, stride_x, top, left;
  int out_height, out_width;
};

template <MaxPool P, typename T>
__device__ __forceinline__ void max_pool(const T* x, T* y) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= P.batch * P.out_height * P.out_width * P.channels) return;
  const int channel = at % P.channels, out_x = at / P.channels % P.out_width;
  const int out_y = at / P.channels / P.out_width % P.out_height;
  const int n = at / P.channels / P.out_width / P.out_height;
  T best = x[0];
  bool any = false;
  for (int ky = 0; ky < P.kernel_y; ++ky) {
    for (int kx = 0; kx < P.kernel_x; ++kx) {
      const int in_y = out_y * P.stride_y - P.top + ky, in_x = out_x * P.stride_x - P.left + kx;
      if (in_y < 0 || in_y >= P.height || in_x < 0 || in_x >= P.width) continue;
      const T value = x[((n * P.height + in_y) * P.width + in_x) * P.channels + channel];
      if (!any || to_float(value) > to_float(best)) best = value;
      any = true;
    }
  }
  y[at] = best;
}

}  // namespace ferplus
