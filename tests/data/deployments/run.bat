@echo off
set "model=org/a"
set VOL=%cd%\data
rem docker run ghcr.io/huggingface/text-generation-inference:1.0
docker run --gpus all -v "%VOL%:/data" ^
    ghcr.io/huggingface/text-generation-inference:3.1.0 ^
    --model-id %model% --revision %REV%
