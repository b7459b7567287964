docker run --device=/dev/kfd --device=/dev/dri --group-add video --security-opt seccomp=unconfined \
  --network host --ipc=host --memory 64g --restart unless-stopped --user 0 \
  --mount type=bind,source=/models,target=/data,readonly --tmpfs /tmp:size=1g \
  --health-cmd 'curl localhost' --health-interval 10s ghcr.io/huggingface/text-generation-inference:2.4.1-rocm --model-id /data/m
