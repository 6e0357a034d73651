/* Cameras of Video4Linux without hardware or a kernel module: preloaded (LD_PRELOAD), it answers
   what programs ask /dev/video0 and so on.

   FAKE_CAMERAS is a folder of files named video0, video1...: each says what the camera does:
   "pictures N" (a second), "busy", "denied", "silent", or "metadata" (a node without pictures).
   A camera whose file is removed is unplugged.
   FAKE_PICTURE is a file with one picture of 320 x 240 pixels as YUYV 4:2:2; the first four pixels
   of every picture are grey, and tell its number in steps of six levels, five bits each.
   FAKE_JPEG, where it is set, is a picture as JPEG, which all cameras then offer too. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { WIDTH = 320, HEIGHT = 240, BYTES = WIDTH * HEIGHT * 2, STEP = 1 << 18 };
enum { BUFFERS = 4, MOST = 1024 };

struct camera {
  int open, jpeg, rate, next, queued[BUFFERS];
  char kind[16], file[512];
  struct timespec due;
};
static struct camera cameras[MOST]; /* by file descriptor */

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int fake_open(const char *path) {
  const char *folder = getenv("FAKE_CAMERAS");
  struct camera camera = {.open = 1, .rate = 100};
  if (!folder || strncmp(path, "/dev/video", 10)) return -2;
  snprintf(camera.file, sizeof camera.file, "%s/%s", folder, path + 5);
  FILE *stream = fopen(camera.file, "r");
  if (!stream) return errno = ENOENT, -1;
  int found = fscanf(stream, "%15s %d", camera.kind, &camera.rate);
  fclose(stream);
  if (found < 1) abort();
  if (!strcmp(camera.kind, "denied")) return errno = EACCES, -1;
  int fd = memfd_create("camera", 0);
  if (fd < 0 || fd >= MOST || ftruncate(fd, STEP * BUFFERS)) abort();
  cameras[fd] = camera;
  return fd;
}

int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = va_arg(rest, mode_t);
  va_end(rest);
  int fd = fake_open(path);
  return fd == -2 ? REAL(open64)(path, flags, mode) : fd;
}

int open(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = va_arg(rest, mode_t);
  va_end(rest);
  int fd = fake_open(path);
  return fd == -2 ? REAL(open)(path, flags, mode) : fd;
}

int close(int fd) {
  if (fd >= 0 && fd < MOST) cameras[fd].open = 0;
  return REAL(close)(fd);
}

DIR *opendir(const char *path) {
  const char *folder = getenv("FAKE_CAMERAS");
  return REAL(opendir)(folder && !strcmp(path, "/dev") ? folder : path);
}

static int set_format(struct camera *camera, struct v4l2_format *format) {
  if (!strcmp(camera->kind, "metadata")) return errno = EINVAL, -1;
  if (!strcmp(camera->kind, "busy")) return errno = EBUSY, -1;
  camera->jpeg = getenv("FAKE_JPEG") && format->fmt.pix.pixelformat == V4L2_PIX_FMT_MJPEG;
  format->fmt.pix.width = WIDTH;
  format->fmt.pix.height = HEIGHT;
  format->fmt.pix.pixelformat = camera->jpeg ? V4L2_PIX_FMT_MJPEG : V4L2_PIX_FMT_YUYV;
  format->fmt.pix.sizeimage = BYTES;
  return 0;
}

static int give_picture(int fd, struct camera *camera, struct v4l2_buffer *buffer) {
  if (!strcmp(camera->kind, "silent")) pause();
  if (access(camera->file, F_OK)) return errno = ENODEV, -1;
  if (!camera->due.tv_sec) clock_gettime(CLOCK_MONOTONIC, &camera->due);
  camera->due.tv_nsec += 1000000000 / camera->rate;
  camera->due.tv_sec += camera->due.tv_nsec / 1000000000;
  camera->due.tv_nsec %= 1000000000;
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &camera->due, NULL);
  int index = 0;
  while (index < BUFFERS && !camera->queued[index]) index++;
  if (index == BUFFERS) return errno = EIO, -1;
  unsigned char picture[BYTES];
  FILE *stream = fopen(getenv(camera->jpeg ? "FAKE_JPEG" : "FAKE_PICTURE"), "rb");
  size_t length = fread(picture, 1, BYTES, stream);
  fclose(stream);
  for (int i = 0; i < 8 && !camera->jpeg; i++) {
    picture[2 * i] = 16 + (i < 4 ? 6 * (camera->next >> (5 * i) & 31) : 0);
    picture[2 * i + 1] = 128;
  }
  if (pwrite(fd, picture, length, (off_t)index * STEP) != (ssize_t)length) abort();
  camera->next++;
  camera->queued[index] = 0;
  buffer->index = index;
  buffer->bytesused = length;
  buffer->flags = 0;
  buffer->timestamp.tv_sec = camera->due.tv_sec;
  buffer->timestamp.tv_usec = camera->due.tv_nsec / 1000;
  return 0;
}

int ioctl(int fd, unsigned long request, ...) {
  va_list rest;
  va_start(rest, request);
  void *argument = va_arg(rest, void *);
  va_end(rest);
  if (fd < 0 || fd >= MOST || !cameras[fd].open) return REAL(ioctl)(fd, request, argument);
  struct camera *camera = &cameras[fd];
  struct v4l2_buffer *buffer = argument;
  switch (request) {
    case VIDIOC_QUERYCAP: {
      struct v4l2_capability *capability = argument;
      memset(capability, 0, sizeof *capability);
      snprintf((char *)capability->card, sizeof capability->card, "Fake Camera: %s", camera->kind);
      capability->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
      return 0;
    }
    case VIDIOC_G_INPUT:
      *(int *)argument = 0;
      return 0;
    case VIDIOC_ENUMINPUT:
      return 0;
    case VIDIOC_G_FMT:
    case VIDIOC_S_FMT:
      return set_format(camera, argument);
    case VIDIOC_G_PARM: {
      struct v4l2_streamparm *parameters = argument;
      parameters->parm.capture.timeperframe.numerator = 1;
      parameters->parm.capture.timeperframe.denominator = camera->rate;
      return 0;
    }
    case VIDIOC_REQBUFS:
      ((struct v4l2_requestbuffers *)argument)->count = BUFFERS;
      return 0;
    case VIDIOC_QUERYBUF:
      buffer->length = BYTES;
      buffer->m.offset = buffer->index * STEP;
      return 0;
    case VIDIOC_QBUF:
      camera->queued[buffer->index] = 1;
      return 0;
    case VIDIOC_DQBUF:
      return give_picture(fd, camera, buffer);
    case VIDIOC_STREAMON:
    case VIDIOC_STREAMOFF:
      return 0;
  }
  return errno = ENOTTY, -1;
}
